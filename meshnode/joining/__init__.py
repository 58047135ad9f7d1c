"""How a node comes to be a member of a mesh.

What lives here: the way in at a node's start (`entering`), the same without running a node (`alone`), and asking a
member's operator instead of bringing a token (`approval`). What does not: credentials and invites
(`meshnode.admission`), the links over which all this is said (`meshnode.transport`).
"""
