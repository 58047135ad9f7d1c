"""The model's process: llama-cpp-python with a plan's devices, behind OpenAI's routes on a private socket.

What lives here: what runs in that process: its main function (`process`), the routes (`completions`), the package's
model class with what a server needs (`counting`), what its tokenizer costs (`vocabularies`). What does not: the node's
side of it (`meshnode.engine.runs`), what a request may say (`meshnode.engine.wishes`).
"""
