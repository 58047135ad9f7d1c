"""How a node comes to be a member of a mesh: it goes on as one, founds one, or joins one with an invite.

What lives here: `enter`. What does not: the rules of membership (`meshnode.admission`), the handshake that redeems a
token (`meshnode.transport`). Called once by the daemon, before anything else runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from meshnode.admission import (
    Admission,
    AdmissionError,
    JoiningGate,
    explain,
    found_mesh,
    invite_to_join,
    take_membership,
)
from meshnode.config import NodeConfig
from meshnode.events import Event, JoinFailed, JoinSucceeded, MeshCreated
from meshnode.identity import Identity
from meshnode.membership.view import LinkFacts
from meshnode.state import KnownPeer, StateDirectory
from meshnode.transport.endpoint import Endpoint
from meshnode.transport.redemption import JoinRefused, Redeemed
from meshnode.transport.settings import TransportSettings
from proto.credential import BadCredential
from proto.ids import BootId, MeshId, NodeId
from proto.messages import Message, Refusal, RefusalCode
from proto.parts import Role
from proto.token import InviteToken

Emit = Callable[[Event], None]


class JoinImpossible(AdmissionError):
    """No member let this node in."""


async def enter(
    state: StateDirectory, identity: Identity, config: NodeConfig, token: str | None, emit: Emit
) -> Admission:
    """This node as a member of its mesh.

    A token of the mesh that the node is in already changes nothing, and a member needs none: an empty one is passed
    over; who belongs to no mesh does not get one of its own because a variable was not filled in. Raises
    `AdmissionError` (a token that is empty, can't be used, is refused, or is of another mesh), `StateError`,
    `ListenFailed`.
    """
    stored = state.credential()
    member_of = None if stored is None else MeshId(stored.mesh)
    if token == "" and member_of is None:
        advice = "put an invite token into it, or unset it to found a mesh"
        raise AdmissionError("MESHNODE_JOIN is set and empty", advice)
    if token:
        invite = invite_to_join(token, identity.node, member_of)
        if member_of is None:
            await _join(state, identity, config, token, invite, emit)
    elif member_of is None:
        founded = found_mesh(state, identity, int(time.time()), role=Role.CLIENT if config.client else Role.WORKER)
        emit(MeshCreated(mesh=founded.mesh, root_kept=founded.root_kept))
    return Admission(state, identity)


async def _join(
    state: StateDirectory, identity: Identity, config: NodeConfig, token: str, invite: InviteToken, emit: Emit
) -> None:
    wanted = Role.CLIENT if config.client else None
    try:
        redeemed = await _redeem(identity, invite.mesh, config, token, wanted, emit)
        # Whom the invite named comes first: a crash between the two must not leave a member that knows nobody.
        state.save_known_peers([KnownPeer(member.node, member.addresses) for member in invite.members])
        take_membership(state, identity, redeemed.mesh, redeemed.chain)
    except JoinRefused as refused:
        raise _impossible(refused, emit) from refused
    except BadCredential as error:
        refusal = Refusal(RefusalCode.BAD_CREDENTIAL, "the member's answer proves nothing", error.found, error.required)
        raise _impossible(JoinRefused(refusal), emit) from error
    role = wanted or invite.role
    emit(JoinSucceeded(mesh=redeemed.mesh, through=redeemed.through, role=role.value))


async def _redeem(
    identity: Identity, mesh: MeshId, config: NodeConfig, token: str, wanted: Role | None, emit: Emit
) -> Redeemed:
    """Over an endpoint of its own: this node has no membership yet, so nothing but the redemption may happen on it."""
    gate = JoiningGate(mesh, time.time)
    observer = JoiningObserver(emit)
    async with Endpoint(identity, mesh, gate, [str(config.listen)], TransportSettings(), observer) as endpoint:
        return await endpoint.redeem(token, wanted)


def _impossible(refused: JoinRefused, emit: Emit) -> JoinImpossible:
    refusal = Refusal(refused.code, refused.text[:512], refused.found[:512], refused.required[:512])
    line = explain(refusal, int(time.time()))
    text, _, advice = line.rpartition("; ")
    if refused.outcomes and refused.code is RefusalCode.INVITER_UNREACHABLE:
        text += f" ({refused.outcomes})"
    emit(JoinFailed(code=refused.code.value, text=text, advice=advice))
    return JoinImpossible(text, advice)


class JoiningObserver:
    """The observer of an endpoint that only redeems: no link stays, so there is nothing to observe but events."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def link_up(self, peer: NodeId, facts: LinkFacts, boot_id: BootId, incarnation_floor: int) -> None:
        """Nothing."""

    def link_down(self, peer: NodeId, code: str, reason: str, by_peer: bool) -> None:
        """Nothing."""

    def dial_failed(self, peer: NodeId, reason: str) -> None:
        """Nothing."""

    def message(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """Nothing."""

    def datagram(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """Nothing."""

    def migrated(self, peer: NodeId, old: str, new: str) -> None:
        """Nothing."""

    def observed_address(self, peer: NodeId, address: str) -> None:
        """Nothing."""

    def path_trouble(self, peer: NodeId, reason: str) -> None:
        """Nothing."""

    def identity_in_use(self, peer: NodeId, text: str) -> None:
        """Nothing: the refusal itself comes back from `redeem`."""

    def peer_floor(self, node: NodeId) -> int:
        """Nobody is remembered yet."""
        return 0
