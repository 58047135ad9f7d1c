"""The exit codes of the command line, for scripts: they stay what they are."""

DONE = 0
REFUSED = 1
"""The verb was understood and could not be carried out; stderr says why."""
BAD_USAGE = 2
UNREACHABLE = 3
"""No node runs there."""
SHORTFALL = 4
QUORUM_NOT_REACHED = 5
