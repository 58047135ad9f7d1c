"""The exit codes of the command line, for scripts: they stay what they are."""

DONE = 0
REFUSED = 1
"""The verb was understood and could not be carried out; stderr says why."""
BAD_USAGE = 2
UNREACHABLE = 3
"""No node runs there."""
SHORTFALL = 4
QUORUM_NOT_REACHED = 5
INTERRUPTED = 130
"""Ctrl-C, as shells count a SIGINT (128 + 2). A node that Ctrl-C stops has left cleanly, which is 0."""
READER_GONE = 141
"""The output's reader went away, as shells count a SIGPIPE (128 + 13): no failure of `meshnode events | head`."""
