"""What a client may ask of a model, checked before an engine hears of it. Pure.

What lives here: the fields of OpenAI's requests that are honoured (`completion`, `chat`), what of them goes to a
`llama-server` (`llama_server`), the texts that a tokenizer must not be given (`texts`), and the error of all these
(`wrong`). What does not: answering (`meshnode.engine.serving`), and the HTTP around it (`meshnode.engine.api`).
"""
