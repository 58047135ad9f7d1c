"""Invites and removals as the control interface offers them, over this node's admission.

What lives here: `Members`: requests in JSON, answers in JSON. What does not: the rules (`meshnode.admission`) and what
follows for links and records (`removed` is told to the daemon). Part of the daemon's `ControlSurface`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from meshnode.admission import Admission, AdmissionError, BookFull, Invite, InviteRequest, read_root_key
from meshnode.control.shapes import Json
from meshnode.control.surface import ControlError
from meshnode.durable import StateError
from meshnode.events import Event, InviteCreated, InviteRevoked
from meshnode.membership.view import MeshView
from proto.ids import NodeId
from proto.parts import Role
from proto.times import utc_text

ALL = "all"


class Members:
    """`view` gives the newest view, `addresses` this node's own; `spread` takes new revocations and acts on them."""

    def __init__(
        self,
        admission: Admission,
        *,
        view: Callable[[], MeshView],
        addresses: Callable[[], Sequence[str]],
        spread: Callable[[Sequence[bytes]], None],
        emit: Callable[[Event], None],
    ) -> None:
        self._admission = admission
        self._view = view
        self._addresses = addresses
        self._spread = spread
        self._emit = emit

    # --- invites ---

    def invites(self) -> list[Json]:
        """Every invite made here, the newest first, without its token."""
        return [_invite_json(invite) for invite in self._admission.invites()]

    def create_invite(self, request: Json) -> Json:
        """A new invite; its token is in this answer and nowhere else."""
        wish = _invite_request(request)
        with _Refusals():
            made = self._admission.invite(wish, self._pinnable(), _now())
        answer = _invite_json(made.invite)
        self._emit(
            InviteCreated(
                token_id=answer["token_id"], role=answer["role"], uses=_uses_text(made.invite.uses),
                expires_at=answer["expires_at"], may_invite=made.invite.may_invite,
            )
        )  # fmt: skip
        return {"token": made.text, **answer}

    def revoke_invite(self, token_id: str) -> Json:
        """Make an invite worthless, here and at whoever else redeems it."""
        with _Refusals():
            revoked = self._admission.revoke_invite(token_id, _now())
        if revoked.entries:
            self._spread(revoked.entries)
        answer = _invite_json(revoked.invite)
        self._emit(InviteRevoked(token_id=answer["token_id"]))
        return answer

    def _pinnable(self) -> list[tuple[NodeId, Sequence[str]]]:
        """This node, then other members that are alive, for tokens that those may redeem too."""
        view = self._view()
        others = [
            (node.node, node.identity.addresses)
            for node in view.alive()
            if node.node != view.local and node.identity is not None
        ]
        return [(view.local, list(self._addresses())), *others]

    # --- removal ---

    def remove(self, request: Json) -> Json:
        """Without `confirmed`: what the removal would take along. With it: carry it out and tell everybody."""
        node = self._node_named(_text(request, "node"))
        keep_words = request.get("keep", [])
        if not isinstance(keep_words, list):
            raise ControlError.bad_field("keep", keep_words, "a list of nodes")
        with _Refusals():
            root_file = request.get("root_key_file")
            root = None if root_file is None else read_root_key(Path(str(root_file)), self._admission.mesh)
            plan = self._admission.plan_removal(node, _now(), root)
        keep = self._kept(keep_words, plan.descendants)
        if request.get("confirmed") is not True:
            return self._consequences(node, plan.descendants, keep)
        with _Refusals():
            removal = self._admission.remove(plan, keep, _now())
        self._spread(removal.entries)
        return {"node": node, "removed": list(removal.removed), "kept": list(removal.kept)}

    def _kept(self, words: Sequence[object], descendants: Sequence[NodeId]) -> list[NodeId]:
        if ALL in words:
            return list(descendants)
        return [self._node_named(str(word)) for word in words]

    def _consequences(self, node: NodeId, descendants: Sequence[NodeId], keep: Sequence[NodeId]) -> Json:
        named = [{"node": one, "name": self._name_of(one), "kept": one in keep} for one in descendants]
        return {"node": node, "name": self._name_of(node), "descendants": named}

    def _name_of(self, node: NodeId) -> str:
        known = self._view().nodes.get(node)
        return known.identity.name if known is not None and known.identity is not None else ""

    def _node_named(self, word: str) -> NodeId:
        """The one member that `word` means: its id, the beginning of it (4 characters or more), or its name."""
        members = dict.fromkeys([*self._view().nodes, *self._admission.roll.members()])
        found = [node for node in members if node == word or (len(word) >= 4 and node.startswith(word))]
        found = found or [node for node in members if word and self._name_of(node) == word]
        if len(found) == 1:
            return found[0]
        problem = "no member" if not found else f"{len(found)} members"
        message = f"{problem} of the mesh answers to {word[:64]!r}; `meshnode peers --all` lists them"
        raise ControlError(404 if not found else 409, "unknown_node", message, field="node", found=word[:64])


class _Refusals:
    """Turns what admission and the state directory refuse into the control interface's one error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AdmissionError):
            raise ControlError(409, "refused", error.text, advice=error.advice) from error
        if isinstance(error, BookFull):
            raise ControlError(409, "refused", str(error), advice=error.advice) from error
        if isinstance(error, StateError):
            raise ControlError(500, "state", f"{error.path}: {error.found}", advice=error.fix) from error


def _invite_request(request: Json) -> InviteRequest:
    role, uses, expires_s = request.get("role", "worker"), request.get("uses", 1), request.get("expires_s", 3600)
    if role not in set(Role):
        raise ControlError.bad_field("role", role, "worker or client")
    if uses is not None and (isinstance(uses, bool) or not isinstance(uses, int)):
        raise ControlError.bad_field("uses", uses, "a whole number, or null for any number")
    if isinstance(expires_s, bool) or not isinstance(expires_s, int):
        raise ControlError.bad_field("expires_s", expires_s, "whole seconds")
    may_invite = request.get("may_invite", False)
    if not isinstance(may_invite, bool):
        raise ControlError.bad_field("may_invite", may_invite, "true or false")
    with _Refusals():
        return InviteRequest(role=Role(role), may_invite=may_invite, uses=uses, lifetime_s=expires_s)


def _invite_json(invite: Invite) -> Json:
    return {
        "token_id": invite.token_id.hex(),
        "role": invite.role.value,
        "may_invite": invite.may_invite,
        "uses": invite.uses,
        "uses_left": invite.uses_left,
        "made_at": utc_text(invite.made_at_unix_s),
        "expires_at": utc_text(invite.expires_at_unix_s),
        "state": _state_of(invite),
        "redeemed_by": list(invite.redeemed_by),
        "redeemed_count": invite.redeemed_count,
    }


def _state_of(invite: Invite) -> str:
    if invite.revoked:
        return "revoked"
    if invite.uses_left == 0:
        return "used up"
    return "expired" if invite.is_expired(_now()) else "open"


def _uses_text(uses: int | None) -> str:
    return "unlimited" if uses is None else str(uses)


def _text(request: Json, field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str) or not value:
        raise ControlError.bad_field(field, value, "a node's id, the beginning of it, or its name")
    return value


def _now() -> int:
    return int(time.time())
