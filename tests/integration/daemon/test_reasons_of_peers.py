"""Reason codes that only members of another make bring about: an older one, a silent one, one without memory."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from hostile_peer import RawPeer
from making_nodes import Nodes, RunningNode
from making_views import GB

from meshnode.identity import Identity, SigningKey
from meshnode.state import StateDirectory
from proto.credential import issue_credential
from proto.ids import MeshId, NodeId
from proto.messages import Delta, IndirectAck, Ping, PingRequest, Revocations
from proto.parts import DeviceOffer, IdentityPart, OfferPart, Part, Role, Willingness
from proto.signing import sign_part
from proto.versions import STAGE_PROTOCOL_GENERATION

PROFILE = "llama-3.1-8b-4bit"
QUICK = ("--dwell-s", "0.2", "--first-quorum-window-s", "0.2", "--pending-s", "0.5")
MEMORY = (DeviceOffer("cpu", "cpu", "RAM", 64 * GB, 64 * GB),)


class OddMember:
    """A member with a credential of its own, issued by the founder's key, that says what a test wants it to."""

    def __init__(self, founder: Identity, mesh: MeshId, chain: tuple[bytes, ...]) -> None:
        self.identity = Identity.starting(SigningKey.generate())
        self.mesh = mesh
        own = issue_credential(
            founder, mesh, self.identity.node, Role.WORKER, may_invite=False, issued_at_unix_s=int(time.time())
        )
        self.chain = (*chain, own)

    @property
    def node(self) -> NodeId:
        return self.identity.node

    def described(self, generation: int = STAGE_PROTOCOL_GENERATION) -> IdentityPart:
        return IdentityPart(
            node=self.node, incarnation=1, version=1, boot_id=self.identity.boot_id, chain=self.chain,
            addresses=("127.0.0.1:1",), features=(), stage_protocol_generation=generation, software="another/1",
        )  # fmt: skip

    def offered(self, devices: tuple[DeviceOffer, ...] = MEMORY) -> OfferPart:
        return OfferPart(
            node=self.node, incarnation=1, version=1, devices=devices, host_usable_bytes=GB, host_declared=False,
            models=(), willingness=Willingness.ALWAYS, draining=False, interested_in=None, inventory_known=True,
            artifact_transfer=False,
        )  # fmt: skip

    def told(self, *parts: Part) -> Delta:
        """These parts of its own, signed."""
        return Delta(parts=tuple(sign_part(self.identity, self.mesh, part) for part in parts), claims=())

    @asynccontextmanager
    async def linked(self, desk: RunningNode) -> AsyncIterator[RawPeer]:
        """Its link to `desk`, which it keeps alive."""
        peer = await RawPeer(desk.json("status")["addresses"][0]).open()
        await peer.authenticate(self.identity, self.mesh, self.chain, NodeId(desk.node))
        peer.say(Revocations(entries=(), complete=True))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_pinging, peer)
            try:
                yield peer
            finally:
                tasks.cancel_scope.cancel()
                peer.shut()


async def _pinging(peer: RawPeer) -> None:
    """Shows that it lives, and says of everybody it is asked about that they do too: it reaches whom others don't."""
    for nonce in range(1, 10_000):
        peer.say(Ping(nonce=nonce, incarnation=1))
        asked = [message for message in peer.datagrams if isinstance(message, PingRequest)]
        peer.datagrams.clear()
        for request in asked:
            peer.say(IndirectAck(nonce=request.nonce, target=request.target, incarnation=1, answered=True))
        await anyio.sleep(0.05)


async def test_what_a_member_says_or_fails_to_say_keeps_it_out_by_name(nodes: Nodes, tmp_path: Path) -> None:
    desk = await anyio.to_thread.run_sync(lambda: nodes.start("desk", *QUICK, "--declare-usable", "10MB"))
    shutil.copytree(desk.state, tmp_path / "copy")
    with StateDirectory.open(tmp_path / "copy") as directory:
        credential, founder = directory.credential(), directory.identity()
    assert credential is not None
    older, quiet, bare, mute, afar = (OddMember(founder, MeshId(credential.mesh), credential.chain) for _ in range(5))
    answers: list[dict[str, Any]] = []
    async with (
        older.linked(desk) as first,
        quiet.linked(desk) as second,
        bare.linked(desk) as third,
        mute.linked(desk) as fourth,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_split, desk, answers)
        await anyio.to_thread.run_sync(lambda: desk.wait_event("split.waiting"))
        first.say(older.told(older.described(STAGE_PROTOCOL_GENERATION + 1), older.offered()))
        second.say(quiet.told(quiet.described()))
        third.say(bare.told(bare.described(), bare.offered(devices=())))
        fourth.say(mute.told(mute.described(), mute.offered()))
        # Nobody answers at its address; the others say that they reach it.
        fourth.say(afar.told(afar.described(), afar.offered()))
    (answer,) = answers
    found = {out["node"]: out["reason"] for out in answer["excluded"]}
    assert found == {
        older.node: "stage_protocol_generation",
        quiet.node: "record_stale",
        bare.node: "missing_vram",
        mute.node: "stage_control_unreachable",
        afar.node: "stage_path_relay_only",
    }
    pending = {label for event in desk.events("split.candidates") for label in event["pending"]}
    assert f"{afar.node}:missing_stage_path" in pending


async def _split(desk: RunningNode, answers: list[dict[str, Any]]) -> None:
    ask = ("split", PROFILE, "--quorum", "6", "--deadline", "9")
    answers.append(await anyio.to_thread.run_sync(lambda: desk.json(*ask, code=5)))
