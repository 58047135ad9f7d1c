"""What a test holds of the emulator: the same methods, carried out in the emulator's own process.

What lives here: `LinkEmulator`. What does not: how datagrams travel (`emulation.emulator`).
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from emulation.conditions import LinkConditions, NatKind
from emulation.emulator import Address, MadeDelay, PathCounters, Relay, precise

END_S = 10.0


class LinkEmulator:
    """Use as a context manager. All methods may be called from any thread while it runs; what they set holds for every
    datagram sent after they return."""

    def __init__(self, seed: int, default: LinkConditions | None = None, bind: str = "127.0.0.1") -> None:
        # A fork would copy the threads' locks of a test that has any.
        context = multiprocessing.get_context("spawn")
        self._commands, theirs = context.Pipe()
        self._process = context.Process(
            target=_relay, args=(theirs, seed, default or LinkConditions(), bind), name="link-emulator", daemon=True
        )
        self._theirs = theirs
        self._lock = threading.Lock()

    def __enter__(self) -> LinkEmulator:
        self._process.start()
        self._theirs.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commands.close()
        self._process.join(END_S)
        self._process.kill()
        self._process.join()

    def attach(self, name: str, real: Address) -> str:
        """Give the node at `real` a public address and return it as `host:port`, for it to advertise."""
        return str(self._do("attach", name, real))

    def move(self, name: str, real: Address) -> None:
        """The node sends from another real address now (it restarted elsewhere)."""
        self._do("move", name, real)

    def shape(self, sender: str, receiver: str, conditions: LinkConditions) -> None:
        """Set one direction; running traffic meets it from the next datagram on."""
        self._do("shape", sender, receiver, conditions)

    def shape_both(self, one: str, other: str, conditions: LinkConditions) -> None:
        """Set both directions alike."""
        self._do("shape_both", one, other, conditions)

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut every path between nodes of different groups; a node in no group keeps all its paths."""
        self._do("partition", *(tuple(group) for group in groups))

    def heal(self) -> None:
        """Bring every path up again, its other conditions as they were."""
        self._do("heal")

    def put_behind_nat(self, name: str, kind: NatKind) -> None:
        """From now on peers see `name` at mapped ports, and reach it only where it sent first."""
        self._do("put_behind_nat", name, kind)

    def rebind(self, name: str) -> None:
        """The node's router forgets its mappings: the next datagram leaves from a new public port."""
        self._do("rebind", name)

    def counters(self, sender: str, receiver: str) -> PathCounters:
        """A copy of what the direction carried so far."""
        counters = self._do("counters", sender, receiver)
        assert isinstance(counters, PathCounters)
        return counters

    def delays(self, sender: str, receiver: str) -> tuple[MadeDelay, ...]:
        """What the newest datagrams delivered in this direction met, oldest first."""
        delays: tuple[MadeDelay, ...] = self._do("delays", sender, receiver)
        return delays

    def forget_delays(self) -> None:
        """From now on `delays` speaks only of what is delivered later."""
        self._do("forget_delays")

    def _do(self, name: str, *arguments: object) -> Any:
        with self._lock:
            self._commands.send((name, arguments))
            return self._commands.recv()


def _relay(commands: Connection, seed: int, default: LinkConditions, bind: str) -> None:
    """The emulator's process. A Ctrl-C is the test's, who then closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    precise()
    relay = Relay(seed, default, bind)
    try:
        relay.serve(commands)
    finally:
        relay.close()
