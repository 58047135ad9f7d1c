"""Real node processes whose every packet passes the link emulator.

`EmulatedMesh` gives each node a fixed loopback port that nobody is told of, and an emulated address that it advertises:
tokens, records and dials name emulated addresses only, so that a test decides what happens between any two nodes. What
lives here beside it: waiting for what a node shows or logs, always with a deadline. Starting processes is in
`making_nodes`, the emulator in `emulation`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from typing import Any

from emulation import LinkConditions, LinkEmulator
from making_nodes import DEADLINE_S, MESHNODE, Nodes, RunningNode, a_free_port

Json = dict[str, Any]


class EmulatedMesh:
    """Starts nodes behind `net`. Names are those of the emulator's hosts."""

    def __init__(self, nodes: Nodes, net: LinkEmulator) -> None:
        self.nodes = nodes
        self.net = net
        self.port: dict[str, int] = {}
        self.address: dict[str, str] = {}

    def place(self, name: str) -> None:
        """Give `name` its port and its emulated address, before it is started."""
        self.port[name] = a_free_port()
        self.address[name] = self.net.attach(name, ("127.0.0.1", self.port[name]))

    def relocate(self, name: str) -> None:
        """`name` will answer on another port; its emulated address stays."""
        self.port[name] = a_free_port()
        self.net.move(name, ("127.0.0.1", self.port[name]))

    def shape_all(self, names: Sequence[str], conditions: LinkConditions) -> None:
        """Place these nodes, with the same conditions between any two of them."""
        for at, one in enumerate(names):
            self.place(one)
            for other in names[:at]:
                self.net.shape_both(one, other, conditions)

    def start(
        self,
        name: str,
        *options: str,
        token: str | None = None,
        wait: bool = True,
        program: Sequence[str] = MESHNODE,
    ) -> RunningNode:
        """Run a node behind the emulator; again with its state where it ran before."""
        if name not in self.port:
            self.place(name)
        places = ("--listen", f"127.0.0.1:{self.port[name]}", "--advertise", self.address[name])
        return self.nodes.start(name, *places, *options, token=token, wait=wait, program=program)

    def found(self, *names: str, options: Sequence[str] = ()) -> list[RunningNode]:
        """A mesh of these nodes, all of which know all and are linked to all."""
        founder = self.start(names[0], *options)
        token = founder.invite("--uses", "100")
        nodes = [founder, *(self.start(name, *options, token=token, wait=False) for name in names[1:])]
        all_linked(nodes)
        return nodes


def until(fact: Callable[[], Any], what: str, within_s: float = DEADLINE_S) -> Any:
    """What `fact` says once it is true; it is asked over and over until the deadline."""
    deadline = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(0.05)
    return found


def seen(node: RunningNode, other: RunningNode | str) -> Json | None:
    """What `node` shows of another node now."""
    wanted = other if isinstance(other, str) else other.node
    peers: list[Json] = node.control().get("/v1/peers")["peers"]
    return next((peer for peer in peers if peer["node"] == wanted), None)


def status_of(node: RunningNode, other: RunningNode | str) -> str | None:
    """The liveness of another node as `node` shows it; None where it does not know it."""
    shown = seen(node, other)
    return None if shown is None else str(shown["status"])


def path_to(node: RunningNode, other: RunningNode | str) -> str | None:
    """`direct` or `relayed`; None where `node` has no path to `other`."""
    shown = seen(node, other)
    return None if shown is None or shown["link"] is None else str(shown["link"]["path"])


def capacity_bytes(node: RunningNode) -> int:
    """The capacity that `node` counts in its mesh."""
    return int(node.control().get("/v1/status")["mesh"]["capacity_bytes"])


def all_linked(nodes: Iterable[RunningNode], within_s: float = DEADLINE_S) -> None:
    """Return once each node shows each other alive over a direct link, with its offer."""
    nodes = list(nodes)
    wanted = {node.name: {other.node for other in nodes if other is not node} for node in nodes}
    deadline = time.monotonic() + within_s
    for node in nodes:
        until(
            lambda node=node: wanted[node.name] <= _linked(node),  # type: ignore[misc]
            f"{node.name} linked to all",
            max(0.1, deadline - time.monotonic()),
        )


def _linked(node: RunningNode) -> set[str]:
    peers = node.control().get("/v1/peers")["peers"]
    return {
        peer["node"]
        for peer in peers
        if peer["status"] == "alive" and peer["offer"] and peer["link"] and peer["link"]["path"] == "direct"
    }


def of_peer(node: RunningNode, event: str, peer: str) -> list[Json]:
    """The events of that name about `peer` in the log of `node`."""
    return [line for line in node.events(event) if line["event"] == event and line.get("peer") == peer]


def wait_of_peer(node: RunningNode, event: str, peer: str, after: int = 0, within_s: float = DEADLINE_S) -> Json:
    """The first event of that name about `peer` in the log of `node`, past the first `after` of them."""
    until(lambda: len(of_peer(node, event, peer)) > after, f"{node.name}: {event} of {peer[:10]}", within_s)
    return of_peer(node, event, peer)[after]


def nobody_given_up(nodes: Iterable[RunningNode]) -> None:
    """No node ever held another of them dead. (A suspicion may be a busy machine's; that it passes is what counts.)"""
    for node, other in permutations(nodes, 2):
        assert of_peer(node, "peer.dead", other.node) == [], f"{node.name} gave {other.name} up"


def all_alive(nodes: Iterable[RunningNode]) -> None:
    """Return once each of the nodes holds each other alive: one that a busy machine kept waiting is soon again."""
    for node, other in permutations(nodes, 2):
        until(lambda node=node, other=other: status_of(node, other) == "alive", f"{other.name} alive to {node.name}")  # type: ignore[misc]
