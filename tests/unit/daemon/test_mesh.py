"""The driver: order of effects, revocations first, its own stalls, questions over links."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel
import pytest
from mesh_of_members import MeshOfMembers

from meshnode.admission import Admission, MemberTrust
from meshnode.events import Event, NodeStalled, RttChanged
from meshnode.membership import LOCAL, LinkFacts, LocalNode, Membership, OfferDraft, PathKind
from meshnode.mesh import Mesh
from proto.ids import BootId, NodeId
from proto.messages import Ack, Confirm, ConfirmRequest, Delta, Message, Ping, RefusalCode, Revocations, ViewHash
from proto.parts import Role

BOOT = BootId(bytes(16))
M = TypeVar("M", bound=Message)


@dataclass
class Journal:
    """What was put on links and on disk, in order; closing a link ends it at once, as the endpoint does."""

    entries: list[tuple[str, object]] = field(default_factory=list)
    mesh: Mesh | None = None
    datagram_left: Callable[[], float | None] = lambda: None
    """When the datagram that is being sent leaves; None holds it back."""

    def send(self, peer: NodeId, message: Message, coalesce: str | None = None) -> None:
        self.entries.append(("send", message))

    def send_datagram(self, peer: NodeId, message: Message) -> float | None:
        self.entries.append(("datagram", message))
        return self.datagram_left()

    def dial(self, peer: NodeId, addresses: Iterable[str]) -> None:
        self.entries.append(("dial", tuple(addresses)))

    def close(self, peer: NodeId, code: RefusalCode, text: str) -> None:
        self.entries.append(("close", code))
        if self.mesh is not None:
            self.mesh.link_down(peer, code, text, by_peer=False)

    def persist(self, incarnation: int) -> None:
        self.entries.append(("persist", incarnation))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.entries]

    def sent(self, kind: type[Message]) -> list[Message]:
        return [entry for what, entry in self.entries if what == "send" and isinstance(entry, kind)]

    def datagrams(self, kind: type[M]) -> list[M]:
        return [entry for what, entry in self.entries if what == "datagram" and isinstance(entry, kind)]


class Driven:
    """One real driver over a real machine and a real admission, at a clock that a test moves."""

    def __init__(self, admission: Admission) -> None:
        self.now = 100.0
        self.journal = Journal()
        self.events: list[Event] = []
        self.in_use: list[str] = []
        self.removals = 0
        self.disk_s = 0.0
        identity = admission.identity
        local = LocalNode(
            identity.node, admission.mesh, Role.WORKER, identity.boot_id, incarnation=1, chain=admission.chain
        )
        trust = MemberTrust(admission, time.time)
        machine = Membership(local, LOCAL, trust, random.Random(7), self.now)
        self.mesh = Mesh(
            machine, local, admission,
            clock=lambda: self.now, emit=self.events.append, persist_incarnation=self._persist,
            identity_in_use=self.in_use.append, removed=self._removed,
        )  # fmt: skip
        self.journal.mesh = self.mesh
        self.journal.datagram_left = lambda: self.now
        self.mesh.attach(self.journal)

    def _persist(self, incarnation: int) -> None:
        self.now += self.disk_s
        self.journal.persist(incarnation)

    def _removed(self) -> None:
        self.removals += 1

    def link(self, peer: NodeId, floor: int = 0) -> None:
        """A link to `peer` stands, and its revocations have come."""
        self.mesh.link_up(peer, LinkFacts(PathKind.DIRECT, "127.0.0.1:1", True, self.now), BOOT, floor)
        self.mesh.message(peer, Revocations((), complete=True), self.now)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[tuple[Admission, Admission]]:
    """Two members of one mesh, who know each other's chains."""
    with ExitStack() as stack:
        mesh = MeshOfMembers(tmp_path, stack)
        yield mesh.founder, mesh.joins("study", mesh.founder)


def test_link_begins_with_revocations(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.mesh.link_up(peer, LinkFacts(PathKind.DIRECT, "127.0.0.1:1", True, driven.now), BOOT, 0)
    assert isinstance(driven.journal.entries[0][1], Revocations)


def test_record_before_the_peers_revocations_ends_the_link(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.mesh.link_up(peer, LinkFacts(PathKind.DIRECT, "127.0.0.1:1", True, driven.now), BOOT, 0)
    driven.mesh.message(peer, Delta((), ()), driven.now)
    assert ("close", RefusalCode.PROTOCOL_ERROR) in driven.journal.entries


def test_higher_incarnation_is_on_disk_before_anybody_hears_of_it(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    driven.link(members[1].identity.node, floor=41)
    kinds = driven.journal.kinds()
    persisted = kinds.index("persist")
    assert driven.journal.entries[persisted] == ("persist", 42)
    before = [entry for kind, entry in driven.journal.entries[:persisted] if kind == "send"]
    assert all(isinstance(message, Revocations) for message in before)
    assert driven.mesh.incarnation == 42


def test_closing_inside_an_effect_queues_up_behind(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.link(peer)
    removal = members[0].remove(members[0].plan_removal(peer, int(time.time())), [], int(time.time()))
    driven.mesh.spread(removal.entries)
    closed = driven.journal.kinds().index("close")
    told = [entry for _, entry in driven.journal.entries[:closed] if isinstance(entry, Revocations) and entry.entries]
    assert [message.entries for message in told if isinstance(message, Revocations)] == [tuple(removal.entries)]
    assert peer not in driven.mesh.view().nodes


def test_removed_node_is_told_to_stop_by_the_revocation_itself(members: tuple[Admission, Admission]) -> None:
    founder, other = members
    driven = Driven(other)
    driven.link(founder.identity.node)
    plan = founder.plan_removal(other.identity.node, int(time.time()))
    removal = founder.remove(plan, [], int(time.time()))
    driven.mesh.message(founder.identity.node, Revocations(tuple(removal.entries), complete=True), driven.now)
    assert driven.removals == 1


async def test_input_after_a_stall_polls_the_machine_first(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    driven.link(members[1].identity.node)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driven.mesh.run)
        await anyio.lowlevel.checkpoint()
        driven.now += 30.0
        driven.mesh.message(members[1].identity.node, ViewHash(bytes(8), 1), driven.now)
        assert [type(event) for event in driven.events if isinstance(event, NodeStalled)] == [NodeStalled]
        tasks.cancel_scope.cancel()


async def test_question_is_answered_by_the_peer_asked_and_by_nobody_else(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.link(peer)
    found: list[Confirm | None] = []

    async def ask() -> None:
        found.append(await driven.mesh.ask_confirm(peer, "m"))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            request = driven.journal.sent(ConfirmRequest)[0]
            assert isinstance(request, ConfirmRequest)
            stranger = Confirm(request.nonce + 1, (), 1, False, True, None, None, None)
            driven.mesh.message(peer, stranger, driven.now)
            assert found == []
            driven.mesh.message(peer, Confirm(request.nonce, (), 7, False, True, None, None, None), driven.now)
    assert found[0] is not None
    assert found[0].host_usable_bytes == 7


async def test_question_over_a_link_that_ends_has_no_answer(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.link(peer)
    found: list[Confirm | None] = []

    async def ask() -> None:
        found.append(await driven.mesh.ask_confirm(peer, "m"))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.lowlevel.checkpoint()
            driven.mesh.link_down(peer, "connection_lost", "gone", by_peer=False)
    assert found == [None]


async def test_reader_of_views_gets_one_that_is_new(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    seen = driven.mesh.view()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                assert (await driven.mesh.newer_view(seen)) is not seen

            tasks.start_soon(read)
            await anyio.lowlevel.checkpoint()
            driven.mesh.publish_offer(OfferDraft(host_usable_bytes=10**9))


def test_most_observed_address_comes_first(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    for peer, address in (("a", "1.1.1.1:1"), ("b", "2.2.2.2:2"), ("c", "2.2.2.2:2")):
        driven.mesh.observed_address(NodeId(peer * 52), address)
    assert driven.mesh.observed_addresses() == ("2.2.2.2:2", "1.1.1.1:1")


def test_what_a_node_does_before_its_ping_leaves_is_no_part_of_the_path(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.disk_s = 0.2
    driven.link(peer, floor=41)
    ping = driven.journal.datagrams(Ping)[0]
    left_at_s = driven.now
    driven.now += 0.5
    driven.mesh.datagram(peer, Ack(ping.nonce, 1, hold_us=20_000), left_at_s + 0.030)
    assert [event.new_ms for event in driven.events if isinstance(event, RttChanged)] == [pytest.approx(10.0)]


def test_ping_that_waits_for_room_on_the_path_is_not_timed(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.journal.datagram_left = lambda: None
    driven.link(peer)
    ping = driven.journal.datagrams(Ping)[0]
    driven.now += 0.03
    driven.mesh.datagram(peer, Ack(ping.nonce, 1, hold_us=0), driven.now)
    assert [event for event in driven.events if isinstance(event, RttChanged)] == []


def test_ack_says_how_long_its_ping_was_held_until_it_is_sent(members: tuple[Admission, Admission]) -> None:
    driven = Driven(members[0])
    peer = members[1].identity.node
    driven.link(peer)
    driven.disk_s = 0.2
    driven.mesh.datagram(peer, Ping(7, 1, accused_at=driven.mesh.incarnation), driven.now - 0.05)
    assert [(ack.nonce, ack.hold_us) for ack in driven.journal.datagrams(Ack)] == [(7, 250_000)]
