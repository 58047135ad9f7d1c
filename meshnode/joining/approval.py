"""Asking a member to let this node in without a token: the joiner's side of `proto.approval`.

What lives here: `seek_approval`. What does not: finding the member (`meshnode.lan`), the member's side
(`meshnode.admission.approving`). Called by `meshnode join --lan`.

Each step is a short link of its own, as the redemption of a token is: an operator takes longer to decide than a
handshake may. This node's operator confirms the words before the credential is fetched: otherwise whoever answers first
could take this node into a mesh of his.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import anyio
from anyio import to_thread

from meshnode.admission import AdmissionError, JoiningGate, explain, take_membership
from meshnode.config import NodeConfig
from meshnode.config.values import SocketAddress
from meshnode.daemon import StartFailed, start_failures
from meshnode.events import Event
from meshnode.identity import Identity
from meshnode.joining.alone import Joined
from meshnode.joining.entering import JoiningObserver
from meshnode.logs import catch_library_logs
from meshnode.state import KnownPeer, StateDirectory
from meshnode.transport.endpoint import Endpoint
from meshnode.transport.redemption import JoinRefused, Redeemed
from meshnode.transport.settings import TransportSettings
from proto.approval import NONCE_BYTES, commit_text, commitment, reveal_text, words
from proto.credential import BadCredential, read_chain
from proto.ids import MeshId, NodeId
from proto.messages import Refusal, RefusalCode
from proto.parts import Role

ASK_EVERY_S: Final = 2.0
WAIT_S: Final = 600.0
"""How long the member's operator has; the desk there closes by itself as well."""

MISSED_TO_GIVE_UP: Final = 5
_PASSING: Final = frozenset({RefusalCode.INVITER_UNREACHABLE, RefusalCode.BUSY})

Confirm = Callable[[tuple[str, ...]], bool]


class WordsDiffer(AdmissionError):
    """This node's operator says that the words are not the same."""


def seek_approval(
    config: NodeConfig,
    mesh: MeshId,
    member: NodeId,
    addresses: Sequence[str],
    *,
    confirm: Confirm,
    tell: Callable[[str], None],
) -> Joined:
    """Ask `member` of `mesh` at `addresses` to let this node in, and keep the credential. `confirm` shows the words to
    this node's operator and asks whether the member's screen shows the same. Raises `StartFailed`."""
    catch_library_logs(_unheard)
    try:
        with start_failures(), StateDirectory.open(config.state_dir) as state:
            if (stored := state.credential()) is not None:
                what = "is a member of that mesh already" if stored.mesh == mesh else "belongs to another mesh"
                raise StartFailed(f"this node {what}", "nothing was changed; `meshnode leave` forgets a mesh")
            identity = state.identity()
            redeemed = anyio.run(_seek, config, identity, mesh, member, tuple(addresses), confirm, tell)
            state.save_known_peers([KnownPeer(member, tuple(addresses))])
            take_membership(state, identity, mesh, redeemed.chain)
            return _joined(identity, mesh, redeemed)
    except BadCredential as error:
        raise StartFailed("the member's answer proves nothing", "ask another member") from error
    except JoinRefused as refused:
        raise _failure(refused) from refused
    except TimeoutError as error:
        raise StartFailed("the member's operator did not decide in time", "ask again when somebody is there") from error


async def _seek(
    config: NodeConfig,
    identity: Identity,
    mesh: MeshId,
    member: NodeId,
    addresses: tuple[str, ...],
    confirm: Confirm,
    tell: Callable[[str], None],
) -> Redeemed:
    wanted = Role.CLIENT if config.client else None
    nonce = os.urandom(NONCE_BYTES)
    commit = commit_text(commitment(mesh, member, identity.node, nonce))
    gate = JoiningGate(mesh, time.time)
    listen = [str(replace(config, listen=SocketAddress(config.listen.host, 0)).listen)]
    observer = JoiningObserver(_unheard)
    async with Endpoint(identity, mesh, gate, listen, TransportSettings(), observer) as endpoint:

        async def step(text: str) -> Redeemed | Refusal:
            try:
                return await endpoint.apply(text, wanted, member, addresses)
            except JoinRefused as refused:
                if refused.code is not RefusalCode.APPROVAL_PENDING:
                    raise
                return Refusal(refused.code, refused.text, refused.found)

        member_nonce = _nonce_in(await step(commit))
        await step(reveal_text(nonce))
        shown = words(mesh, member, identity.node, nonce, member_nonce)
        if not await to_thread.run_sync(confirm, shown):
            text = "the words on the two screens are not the same, or nobody compared them"
            raise WordsDiffer(text, "nothing was changed; if they do differ, somebody is in between: use a token")
        tell("waiting for the member's operator to accept ...")
        with anyio.fail_after(WAIT_S):
            return await _fetched(lambda: step(reveal_text(nonce)))


async def _fetched(step: Callable[[], Awaitable[Redeemed | Refusal]]) -> Redeemed:
    """Ask until the operator has decided. A member that can't be reached for a moment is asked again."""
    missed = 0
    while True:
        try:
            answer = await step()
        except JoinRefused as refused:
            missed += 1
            if refused.code not in _PASSING or missed >= MISSED_TO_GIVE_UP:
                raise
        else:
            missed = 0
            if isinstance(answer, Redeemed):
                return answer
        await anyio.sleep(ASK_EVERY_S)


def _nonce_in(answer: Redeemed | Refusal) -> bytes:
    try:
        nonce = bytes.fromhex("" if isinstance(answer, Redeemed) else answer.found)
    except ValueError:
        nonce = b""
    if len(nonce) != NONCE_BYTES:
        raise JoinRefused(Refusal(RefusalCode.PROTOCOL_ERROR, "the member gave no nonce of its own"))
    return nonce


def _joined(identity: Identity, mesh: MeshId, redeemed: Redeemed) -> Joined:
    role = read_chain(redeemed.chain, mesh, identity.node).last.role
    return Joined(mesh, identity.node, role.value, already=False)


def _failure(refused: JoinRefused) -> StartFailed:
    refusal = Refusal(refused.code, refused.text[:512], refused.found[:512], refused.required[:512])
    text, _, advice = explain(refusal, int(time.time())).rpartition("; ")
    return StartFailed(text, advice)


def _unheard(_: Event) -> None:
    """The steps are many and say nothing by themselves."""
