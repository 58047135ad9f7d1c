"""A UDP link emulator for tests with real nodes: what kernel netem does where it exists.

Used by `tests/integration`; see `emulation.emulator` for how a datagram travels.
"""

from emulation.conditions import LinkConditions, NatKind
from emulation.emulator import MadeDelay, PathCounters
from emulation.process import LinkEmulator

__all__ = ["LinkConditions", "LinkEmulator", "MadeDelay", "NatKind", "PathCounters"]
