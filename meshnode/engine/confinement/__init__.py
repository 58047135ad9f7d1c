"""Least rights for engine processes: what each gives up before the engine's code runs.

What lives here: the list of what a process may use (`reach`), the kernel's interfaces that hold it to that (`landlock`,
`socket_filter`, `rights`), and the step between the node and a program that is not ours (`program`). What does not:
starting and watching processes (`meshnode.engine.process`).
"""
