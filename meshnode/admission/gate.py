"""What the transport asks at its door.

What lives here: `MemberGate` for a node that is in a mesh and `JoiningGate` for one that is on its way in; both are
`meshnode.transport.boundary.AdmissionGate`. What does not: the answers' reasons (the rooms beside this one). Called by
the transport's handshakes, synchronously."""

from __future__ import annotations

from collections.abc import Callable

from meshnode.admission.admission import Admission
from meshnode.admission.redeeming import Admitted, Refused
from meshnode.events import ApprovalUsed, Event, InviteRedeemed, InviteRefused
from proto.approval import read_text
from proto.credential import BadCredential, BadCredentialReason, verify_chain
from proto.ids import MeshId, NodeId
from proto.messages import Refusal, RefusalCode
from proto.parts import Role
from proto.revocation import RevocationSet

_CODES = {
    BadCredentialReason.REVOKED: RefusalCode.REMOVED,
    BadCredentialReason.WRONG_MESH: RefusalCode.WRONG_MESH,
}


class MemberGate:
    """The gate of a member. `wall_clock` gives seconds since 1970 UTC, `clock` monotonic seconds; `emit` takes the
    events of redeemed and refused invites, which never hold the token."""

    def __init__(
        self,
        admission: Admission,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
        emit: Callable[[Event], None],
    ) -> None:
        self._admission = admission
        self._wall_clock = wall_clock
        self._clock = clock
        self._emit = emit

    def own_chain(self) -> tuple[bytes, ...]:
        """This node's credential chain, root's first."""
        return self._admission.chain

    def check_chain(self, node: NodeId, chain: tuple[bytes, ...]) -> Refusal | None:
        """None where `chain` proves `node` a member now, else why not (`bad_credential`, `removed`, `wrong_mesh`)."""
        try:
            self._admission.roll.admit(node, chain, int(self._wall_clock()))
        except BadCredential as error:
            return _refusal(error)
        return None

    def redeem(
        self, token: str, joiner: NodeId, source_address: str, role: Role | None = None
    ) -> tuple[bytes, ...] | Refusal:
        """Redeem an invite token for `joiner`, who has proved its key, with the `role` it asks for: its new chain, or
        why not. `too_many_failures` asks the caller to close without a word."""
        if read_text(token) is not None:
            return self._approve(token, joiner, source_address, role)
        now_unix_s = int(self._wall_clock())
        answer = self._admission.redeem(token, joiner, source_address, now_unix_s, self._clock(), role)
        if isinstance(answer, Refused):
            self._report_refused(answer, source_address)
            return answer.message()
        self._admission.roll.admit(joiner, answer.chain, now_unix_s)
        self._report_admitted(answer, joiner)
        return answer.chain

    def _approve(
        self, text: str, joiner: NodeId, source_address: str, role: Role | None
    ) -> tuple[bytes, ...] | Refusal:
        answer = self._admission.desk.answer(text, joiner, source_address, role, self._clock())
        if isinstance(answer, Refusal):
            return answer
        now_unix_s = int(self._wall_clock())
        chain = self._admission.approve(joiner, answer.role, now_unix_s)
        if not isinstance(chain, Refusal):
            self._admission.roll.admit(joiner, chain, now_unix_s)
            self._emit(ApprovalUsed(joiner, answer.role.value, source_address))
        return chain

    def is_revoked(self, node: NodeId) -> bool:
        """True where a valid revocation names `node` or an ancestor of its chain."""
        return self._admission.roll.is_cut(node)

    def _report_refused(self, refused: Refused, address: str) -> None:
        code, found, required = refused.code.value, refused.found, refused.required
        self._emit(InviteRefused(code, address, found, required, refused.advice))

    def _report_admitted(self, admitted: Admitted, joiner: NodeId) -> None:
        left = "unlimited" if admitted.uses_left is None else str(admitted.uses_left)
        self._emit(InviteRedeemed(admitted.token_id.hex(), joiner, admitted.role.value, left, admitted.again))


class JoiningGate:
    """The gate of a node without a credential, whose invite is for `mesh`: it believes the mesh's own members, knows no
    revocation yet, and lets nobody in."""

    def __init__(self, mesh: MeshId, wall_clock: Callable[[], float]) -> None:
        self._mesh = mesh
        self._wall_clock = wall_clock

    def own_chain(self) -> tuple[bytes, ...]:
        """Nothing yet."""
        return ()

    def check_chain(self, node: NodeId, chain: tuple[bytes, ...]) -> Refusal | None:
        """None where `chain` proves `node` a member of the invite's mesh."""
        try:
            verify_chain(chain, self._mesh, node, int(self._wall_clock()), RevocationSet())
        except BadCredential as error:
            return _refusal(error)
        return None

    def redeem(
        self, token: str, joiner: NodeId, source_address: str, role: Role | None = None
    ) -> tuple[bytes, ...] | Refusal:
        """Refused: this node is no member itself yet."""
        return Refusal(RefusalCode.BUSY, "this node is joining the mesh itself")

    def is_revoked(self, node: NodeId) -> bool:
        """False: it has learned of no removal yet."""
        return False


def _refusal(error: BadCredential) -> Refusal:
    code = _CODES.get(error.reason, RefusalCode.BAD_CREDENTIAL)
    return Refusal(code, f"credential {error.at}: {error.reason.value}", error.found[:512], error.required[:512])
