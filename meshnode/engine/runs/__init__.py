"""A coordinator's runs: each plan that stands is loaded, checked against what the engine did, watched and served.

What lives here: the models that a node coordinates (`models`) and the run of one plan (`run`): leading the engine to
its devices (`devices`, `own_server`), comparing what it loaded (`report`, `checking`), watching and telling (`watch`,
`telling`, `llama_server`). What does not: the processes themselves (`meshnode.engine.serving`,
`meshnode.engine.stage`), and who is answered (`meshnode.engine.api`).
"""
