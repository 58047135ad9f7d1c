"""A node as a service of its machine.

What lives here: what the process says to whoever started it (`notifying`), the files by which a service manager starts
it (`files`), and installing it with one (`managers`). What does not: the commands (`meshnode.cli.service`).
"""
