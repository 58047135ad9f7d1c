"""The engine room: runs plans on llama.cpp, in processes that are bound to what they need, and answers clients.

What lives here: the room as the daemon sees it (`room`), and what its parts share: which engine there is (`found`,
`native`), its devices in its own words (`devices`), a plan as command lines (`commands`, `export`), one process
(`process`, `words`, `stillness`), one request over a stream (`http1`). Its parts:

    runs         a coordinator's runs of the models it serves        wishes       what a client may ask, checked
    stage        a worker's stages                                   api          the interface that clients talk to
    weights      large tensors, brought to a stage beforehand        serving      what runs in a model's process
    confinement  the least rights of every engine process

What does not: the plan (`planner`), the split's life (`meshnode.split`), ways to other nodes (`meshnode.tunnel`).
"""
