"""A worker's stages: llama.cpp's RPC servers, and the only way that leads to them.

What lives here: the node's side (`stages`), the processes of one stage (`process`), the connected sockets handed from
these to the node (`passage`), the first words of the RPC protocol (`hello`). What does not: what fills their cache
(`meshnode.engine.weights`), the coordinator's side (`meshnode.engine.runs`).
"""
