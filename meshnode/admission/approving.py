"""Nodes that ask to be let in without a token, and the operator's word on each.

What lives here: `ApprovalDesk`, its requests and answers. What does not: the words and why they are safe
(`proto.approval`), issuing the credential (`meshnode.admission.admission`), the door (`gate`). Pure: times are
arguments.

Nobody is listened to unless the operator has opened the desk, for some minutes. A request is known by the joiner's key,
which it has proved, and by its commitment; another commitment of the same key is another request, with another nonce of
ours and other words. The operator decides by the words, so that what was accepted is what was compared. A decision
stands until the desk closes, so that an answer that was lost can be fetched again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from proto.approval import NONCE_BYTES, commitment, read_text, words
from proto.ids import MeshId, NodeId, short
from proto.messages import Refusal, RefusalCode
from proto.parts import Role

MAX_REQUESTS: Final = 8
MAX_COMMITS: Final = 40
"""Commitments taken while the desk is open: each is a throw of the dice for whoever sits in between."""
MAX_OPEN_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A node that asks. `words` is empty until it has revealed its nonce; `accepted` None until it is decided."""

    node: NodeId
    address: str
    role: Role
    asked_at_s: float
    commit: bytes
    own_nonce: bytes
    words: tuple[str, ...] = ()
    accepted: bool | None = None


@dataclass(frozen=True, slots=True)
class Approved:
    """The operator let it in, as `role`."""

    role: Role


class ApprovalDesk:
    """One node's desk. `random_bytes` draws nonces."""

    def __init__(self, own: NodeId, mesh: MeshId, random_bytes: Callable[[int], bytes]) -> None:
        self._own = own
        self._mesh = mesh
        self._random_bytes = random_bytes
        self._open_until_s = 0.0
        self._role = Role.WORKER
        self._requests: dict[NodeId, ApprovalRequest] = {}
        self._commits = 0

    # --- the operator ---

    def open(self, now_s: float, for_s: float, role: Role) -> None:
        """Listen for `for_s` seconds, at most `MAX_OPEN_S`; nodes get `role` at most. Opening an open desk prolongs
        it."""
        if not self.is_open(now_s):
            self.close()
        self._open_until_s = now_s + min(for_s, MAX_OPEN_S)
        self._role = role

    def close(self) -> None:
        """Listen to nobody, and forget who asked."""
        self._open_until_s = 0.0
        self._requests.clear()
        self._commits = 0

    def is_open(self, now_s: float) -> bool:
        """Whether anybody is listened to."""
        return now_s < self._open_until_s

    def open_for_s(self, now_s: float) -> float:
        """Seconds until it closes by itself; 0 where it is closed."""
        return max(0.0, self._open_until_s - now_s)

    def requests(self, now_s: float) -> tuple[ApprovalRequest, ...]:
        """Who has words to compare, the oldest first."""
        if not self.is_open(now_s):
            return ()
        return tuple(sorted((one for one in self._requests.values() if one.words), key=lambda one: one.asked_at_s))

    def decide(self, compared: Sequence[str], accept: bool, now_s: float) -> ApprovalRequest | None:
        """Decide the request with exactly these words; None where there is none that is open."""
        for request in self.requests(now_s):
            if request.words == tuple(compared) and request.accepted is None:
                self._requests[request.node] = decided = replace(request, accepted=accept)
                return decided
        return None

    # --- who asks ---

    def answer(self, text: str, joiner: NodeId, address: str, wanted: Role | None, now_s: float) -> Approved | Refusal:
        """Answer one step of `joiner`, whose key was proved."""
        step = read_text(text)
        if step is None:
            return Refusal(RefusalCode.MALFORMED, "this is no request for approval")
        if not self.is_open(now_s):
            self.close()
            return Refusal(RefusalCode.APPROVAL_CLOSED, "this member lets nobody in by approval now")
        kind, value = step
        if kind == "commit":
            return self._committed(value, joiner, address, wanted, now_s)
        return self._revealed(value, joiner)

    def _committed(self, commit: bytes, joiner: NodeId, address: str, wanted: Role | None, now_s: float) -> Refusal:
        request = self._requests.get(joiner)
        if request is None or request.commit != commit:
            full = joiner not in self._requests and len(self._requests) >= MAX_REQUESTS
            if full or self._commits >= MAX_COMMITS:
                return Refusal(RefusalCode.BUSY, "too many nodes ask to be let in")
            self._commits += 1
            role = Role.CLIENT if Role.CLIENT in (self._role, wanted) else Role.WORKER
            request = ApprovalRequest(joiner, address, role, now_s, commit, self._random_bytes(NONCE_BYTES))
            self._requests[joiner] = request
        return Refusal(RefusalCode.APPROVAL_PENDING, "this member's nonce is in `found`", request.own_nonce.hex())

    def _revealed(self, nonce: bytes, joiner: NodeId) -> Approved | Refusal:
        request = self._requests.get(joiner)
        if request is None:
            return Refusal(RefusalCode.APPROVAL_CLOSED, "this member has no request of this node any more")
        if not hmac.compare_digest(commitment(self._mesh, self._own, joiner, nonce), request.commit):
            del self._requests[joiner]
            return Refusal(RefusalCode.BAD_PROOF, "the nonce is not the one that was committed to", short(joiner))
        if not request.words:
            shown = words(self._mesh, self._own, joiner, nonce, request.own_nonce)
            self._requests[joiner] = request = replace(request, words=shown)
        if request.accepted is None:
            return Refusal(RefusalCode.APPROVAL_PENDING, "the member's operator has not decided yet")
        if not request.accepted:
            return Refusal(RefusalCode.APPROVAL_DENIED, "the member's operator refused")
        return Approved(request.role)
