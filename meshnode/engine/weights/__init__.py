"""The weights cache of an engine: a stage's large tensors, brought to its machine before the engine asks for them.

What lives here: the cache and its folders, filling it from local files, fetching what no local file has over tunnels,
giving it to others, and the child processes that do the reading and hashing. What does not: the stages that need it
(`meshnode.engine.stage.stages`), the wire's shapes (`proto.weights`), the tunnels (`meshnode.tunnel`).
"""
