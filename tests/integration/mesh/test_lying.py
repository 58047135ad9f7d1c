"""A member with a good key that lies about itself and repeats what others once said, to real daemons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from emulated_mesh import EmulatedMesh, all_linked, capacity_bytes, nobody_given_up, of_peer, seen, status_of, until
from hostile_peer import RawPeer, the_member_in
from making_nodes import PATIENT, RunningNode

from meshnode.identity import Identity
from proto.codec import encode_datagram
from proto.ids import MeshId, NodeId, short_id_of
from proto.messages import Ack, Delta, Digest, Ping, Revocations
from proto.parts import (
    Coordinate,
    DeviceOffer,
    IdentityPart,
    NetworkPart,
    OfferPart,
    Part,
    PartKind,
    RttEntry,
    SignedPart,
    Willingness,
)
from proto.signing import open_part, sign_part

TEN_GB = ("--declare-usable", "10GB")
INCARNATION = 1000
LONGEST_HOLD_US = 600_000_000


class Liar:
    """A member's key in the hands of whoever speaks through `peer` to one daemon."""

    def __init__(self, peer: RawPeer, identity: Identity, mesh: MeshId, chain: tuple[bytes, ...]) -> None:
        self.peer = peer
        self.node = identity.node
        self._identity, self._mesh, self._chain = identity, mesh, chain
        self._version = 0
        self.heard: list[SignedPart] = []

    def version(self) -> int:
        self._version += 1
        return self._version

    def says(self, part: Part) -> None:
        """Publish a part of its own, well signed."""
        self.repeats([sign_part(self._identity, self._mesh, part)])

    def repeats(self, parts: list[SignedPart]) -> None:
        self.peer.say(Delta(tuple(parts), (), urgent=True))

    def identity(self) -> IdentityPart:
        boot, where = self._identity.boot_id, ("127.0.0.1:9",)
        return IdentityPart(self.node, INCARNATION, self.version(), boot, self._chain, where, (), 1, "liar", "loft")

    def offer(self, usable_bytes: int) -> OfferPart:
        device = DeviceOffer("gpu0", "gpu", "the largest there is", usable_bytes, usable_bytes)
        return OfferPart(
            self.node,
            INCARNATION,
            self.version(),
            (device,),
            0,
            False,
            (),
            Willingness.ALWAYS,
            False,
            None,
            True,
            False,
        )

    def network(self, row: tuple[RttEntry, ...], coordinate: Coordinate) -> NetworkPart:
        return NetworkPart(self.node, INCARNATION, self.version(), row, coordinate)

    async def answer(self) -> None:
        """Answer every ping and say that it was held for as long as can be said; keep every record that comes."""
        while True:
            pings = [message for message in self.peer.datagrams if isinstance(message, Ping)]
            self.peer.datagrams.clear()
            for ping in pings:
                ack = Ack(ping.nonce, INCARNATION, LONGEST_HOLD_US, False, None)
                self.peer.write_datagram(encode_datagram(ack))
            for delta in [message for message in self.peer.received if isinstance(message, Delta)]:
                self.heard.extend(delta.parts)
            self.peer.received.clear()
            await anyio.sleep(0.02)

    def heard_of(self, node: str) -> list[SignedPart]:
        return [signed for signed in self.heard if open_part(signed, self._mesh).node == node]

    def kinds_heard_of(self, node: str) -> set[PartKind]:
        return {signed.kind for signed in self.heard_of(node)}


async def marked(node: RunningNode, liar: Liar, usable_bytes: int) -> None:
    """Return once `node` shows an offer that the liar makes now, and so has read all that was said before."""
    liar.says(liar.offer(usable_bytes))

    def shown() -> bool:
        offer = (seen(node, liar.node) or {})["offer"]
        return offer is not None and offer["usable_bytes"] == usable_bytes

    await anyio.to_thread.run_sync(until, shown, "the offer")


def rejections(node: RunningNode, liar: Liar) -> list[str]:
    return [event["reason"] for event in node.events("record.rejected") if event["relayed_by"] == liar.node]


async def test_member_that_lies_about_itself_and_repeats_old_records_is_named_and_believed_in_nothing(
    mesh: EmulatedMesh, tmp_path: Path
) -> None:
    options = (*PATIENT, *TEN_GB)
    nodes = await anyio.to_thread.run_sync(lambda: mesh.found("attic", "study", "loft", options=options))
    attic, study, loft = nodes
    assert await anyio.to_thread.run_sync(loft.stop) == 0
    identity, own_mesh, chain = the_member_in(loft.state, tmp_path / "loft-copy")
    peer = await RawPeer(f"127.0.0.1:{mesh.port['attic']}").open()
    await peer.authenticate(identity, own_mesh, chain, NodeId(attic.node))
    liar = Liar(peer, identity, own_mesh, chain)
    peer.say(Revocations(entries=(), complete=True))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(liar.answer)
        liar.says(liar.identity())
        await anyio.to_thread.run_sync(until, lambda: status_of(attic, liar.node) == "alive", "it is back")

        # More bytes than there are, and a place nowhere.
        liar.says(liar.offer(10**18))
        liar.says(liar.network((), Coordinate((0.0, 0.0, 0.0, 1e300), 0.0, 0.1)))
        liar.says(liar.network((), Coordinate((0.0, 0.0, 0.0, float("nan")), 0.0, 0.1)))
        await marked(attic, liar, 5_000_000_000)
        reasons = rejections(attic, liar)
        assert len(reasons) == 3
        assert "usable_bytes" in reasons[0] or "capacity_bytes" in reasons[0]
        assert capacity_bytes(attic) == 25_000_000_000

        # Short ways to everybody: its own word about its own links, and nobody else's.
        near = tuple(RttEntry(short_id_of(NodeId(node.node)), 1, 1, 1000, False) for node in (attic, study))
        liar.says(liar.network(near, Coordinate((0.0,) * 4, 0.0, 0.0)))
        await marked(attic, liar, 6_000_000_000)
        await anyio.to_thread.run_sync(attic.wait_event, "wire.rejected", lambda event: event["field"] == "hold_us")
        assert figure(attic, liar.node) is None, "an answer that left before its question is no sample"
        await anyio.to_thread.run_sync(until, lambda: measured(attic, study.node), "the honest pair's own figure")

        # What others said before.
        peer.say(Digest((), 0, 1, False))
        await anyio.to_thread.run_sync(until, lambda: len(liar.kinds_heard_of(study.node)) > 1, "records of study")
        before = liar.heard_of(study.node)
        await anyio.to_thread.run_sync(study.verb, "drain")
        await anyio.to_thread.run_sync(until, lambda: drains(attic, study), "what study says now")
        incarnation = (seen(attic, study) or {})["incarnation"]
        liar.repeats(before * 5)
        await marked(attic, liar, 7_000_000_000)
        assert drains(attic, study)
        assert (seen(attic, study) or {})["incarnation"] == incarnation
        tasks.cancel_scope.cancel()
    peer.shut()
    await anyio.to_thread.run_sync(all_linked, [attic, study])
    nobody_given_up([attic, study])
    assert len(of_peer(attic, "link.up", study.node)) == 1


def figure(node: RunningNode, other: str) -> dict[str, Any] | None:
    found = (seen(node, other) or {})["rtt"]
    assert found is None or isinstance(found, dict)
    return found


def measured(node: RunningNode, other: str) -> bool:
    found = figure(node, other)
    return found is not None and found["source"] == "measured"


def drains(node: RunningNode, other: RunningNode) -> bool:
    return bool((seen(node, other) or {})["offer"]["draining"])
