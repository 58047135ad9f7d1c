"""Two link tables, their dials crossing in every order: both ends end with the same link, and with one.

The model: a dial is a link on which messages travel in order, in both directions; the order *between* links and
directions is hypothesis' choice. A node that is asked for a sign of life answers for a link that lives at its end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from making_members import Key

from meshnode.transport.link_table import Action, Ask, Candidate, Conflict, Install, LinkTable, Refuse
from proto.ids import BootId, NodeId

NODES = tuple(sorted((Key("one").node, Key("two").node)))


@dataclass
class End:
    """One node: its table, the links that live at this end, and its dials whose welcome has not come."""

    node: NodeId
    boot_id: BootId
    table: LinkTable
    alive: set[int] = field(default_factory=set)
    greeting: set[int] = field(default_factory=set)
    conflicts: int = 0


class World:
    """Two ends and the links between them."""

    def __init__(self) -> None:
        self.ends = {node: End(node, BootId(node.encode()[:16]), LinkTable(node, 10)) for node in NODES}
        self.dialler: dict[int, NodeId] = {}
        self.pipes: dict[tuple[int, NodeId], deque[str]] = {}
        """Messages under way, by link and receiver."""
        self.asked: list[tuple[NodeId, int]] = []

    def other(self, node: NodeId) -> End:
        return self.ends[NODES[1 - NODES.index(node)]]

    def dial(self, node: NodeId) -> None:
        end, peer = self.ends[node], self.other(node)
        if end.table.current(peer.node) is not None or end.greeting or end.table.is_waiting(peer.node):
            return
        link = len(self.dialler) + 1
        self.dialler[link] = node
        end.alive.add(link)
        peer.alive.add(link)
        end.greeting.add(link)
        self.send(link, peer.node, "proof")

    def send(self, link: int, to: NodeId, message: str) -> None:
        self.pipes.setdefault((link, to), deque()).append(message)

    def deliver(self, link: int, to: NodeId) -> None:
        message = self.pipes[link, to].popleft()
        end, peer = self.ends[to], self.other(to)
        if link not in end.alive:
            return
        if message == "closed":
            end.alive.discard(link)
            was_greeting = link in end.greeting
            end.greeting.discard(link)
            self.carry_out(end, end.table.gone(link, peer.node))
            if was_greeting:
                self.carry_out(end, end.table.own_dial_ended(peer.node))
            return
        dialled_by_us = message == "welcome"
        end.greeting.discard(link)
        candidate = Candidate(link, peer.node, peer.boot_id, dialled_by_us)
        self.carry_out(end, end.table.arrive(candidate, own_dial_leads=bool(end.greeting)))

    def carry_out(self, end: End, actions: tuple[Action, ...]) -> None:
        peer = self.other(end.node)
        for action in actions:
            match action:
                case Install(link, replaces, _):
                    if self.dialler[link] != end.node:
                        self.send(link, peer.node, "welcome")
                    for greeting in tuple(end.greeting - {link}):
                        self.close(end, greeting)
                    if replaces is not None:
                        self.close(end, replaces)
                case Refuse(link, _, _):
                    self.close(end, link)
                case Ask(link):
                    self.asked.append((end.node, link))
                case Conflict():
                    end.conflicts += 1

    def close(self, end: End, link: int) -> None:
        end.alive.discard(link)
        end.greeting.discard(link)
        self.carry_out(end, end.table.gone(link, self.other(end.node).node))
        self.send(link, self.other(end.node).node, "closed")

    def answer(self, asker: NodeId, link: int) -> None:
        end, peer = self.ends[asker], self.other(asker)
        lives = link in peer.alive and link in end.alive
        self.carry_out(end, end.table.answered(peer.node) if lives else end.table.silent(peer.node))

    def moves(self) -> list[tuple[int, NodeId]]:
        return [key for key, pipe in self.pipes.items() if pipe]

    def settle(self, choose: st.DataObject) -> None:
        """Deliver everything in some order; questions are answered when nothing else is under way or before."""
        for _ in range(1000):
            moves = self.moves()
            if not moves and not self.asked:
                return
            at = choose.draw(st.integers(0, len(moves) + len(self.asked) - 1))
            if at < len(moves):
                self.deliver(*moves[at])
            else:
                self.answer(*self.asked.pop(at - len(moves)))
        raise AssertionError("the two ends never come to rest")

    def currents(self) -> list[int | None]:
        return [self.ends[node].table.current(self.other(node).node) for node in NODES]


@given(st.data())
def test_dials_that_cross_in_any_order_end_with_one_link_that_both_ends_hold(data: st.DataObject) -> None:
    world = World()
    for node in data.draw(st.permutations(NODES)):
        world.dial(node)
        for _ in range(data.draw(st.integers(0, 2))):
            if moves := world.moves():
                world.deliver(*moves[data.draw(st.integers(0, len(moves) - 1))])
    world.settle(data)
    one, other = world.currents()
    assert one is not None
    assert one == other
    assert not any(end.table.is_waiting(world.other(end.node).node) for end in world.ends.values())
    assert not any(end.conflicts for end in world.ends.values())


@given(st.data())
def test_links_that_die_and_are_dialled_again_always_end_with_one(data: st.DataObject) -> None:
    world = World()
    for _ in range(data.draw(st.integers(1, 12))):
        step = data.draw(st.sampled_from(["dial", "deliver", "forget"]))
        node = data.draw(st.sampled_from(NODES))
        if step == "dial":
            world.dial(node)
        elif step == "deliver" and (moves := world.moves()):
            world.deliver(*moves[data.draw(st.integers(0, len(moves) - 1))])
        elif step == "forget":
            # This end loses everything without a word, as when its network changed under it.
            end = world.ends[node]
            for link in tuple(end.alive):
                end.alive.discard(link)
                world.carry_out(end, end.table.gone(link, world.other(node).node))
            end.greeting.clear()
            world.carry_out(end, end.table.own_dial_ended(world.other(node).node))
    world.settle(data)
    # Whatever is left over, the next dial of a node without a link brings both ends together.
    for node in NODES:
        world.dial(node)
        world.settle(data)
    one, other = world.currents()
    assert one == other or None in (one, other)
    assert all(link is None or link in world.ends[node].alive for node, link in zip(NODES, (one, other), strict=True))
