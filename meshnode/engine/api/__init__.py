"""The OpenAI-compatible interface of a node: requests for any model of the mesh, answered where it runs.

What lives here: the routes (`gateway`), who may use them (`gate`), whose turn it is (`turns`). What does not: what a
request may say (`meshnode.engine.wishes`), running models (`meshnode.engine.runs`).
"""
