"""How nodes get into a mesh and out of it: invites, approvals, joining, removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class InviteCreated(Event):
    """An invite token was made; the token itself is never logged."""

    name: ClassVar[str] = "invite.created"
    level: ClassVar[Level] = Level.INFO
    token_id: str
    role: str
    uses: str
    expires_at: str
    may_invite: bool


@dataclass(frozen=True)
class InviteRedeemed(Event):
    """A node joined by a token; `again` where it had lost the first answer."""

    name: ClassVar[str] = "invite.redeemed"
    level: ClassVar[Level] = Level.INFO
    token_id: str
    node: str
    role: str
    uses_left: str
    again: bool


@dataclass(frozen=True)
class InviteRefused(Event):
    """A token was refused: the code, both facts, the advice."""

    name: ClassVar[str] = "invite.refused"
    level: ClassVar[Level] = Level.WARNING
    code: str
    address: str
    found: str
    required: str
    advice: str


@dataclass(frozen=True)
class InviteRevoked(Event):
    """A token was revoked by the operator."""

    name: ClassVar[str] = "invite.revoked"
    level: ClassVar[Level] = Level.INFO
    token_id: str


@dataclass(frozen=True)
class ApprovalOpened(Event):
    """The operator opened this node to others that ask to be let in (`meshnode approve`), for so long."""

    name: ClassVar[str] = "approval.opened"
    level: ClassVar[Level] = Level.INFO
    for_s: float
    role: str


@dataclass(frozen=True)
class ApprovalDecided(Event):
    """The operator compared the six words of a node that asks, and decided."""

    name: ClassVar[str] = "approval.decided"
    level: ClassVar[Level] = Level.INFO
    node: str
    address: str
    role: str
    accepted: bool


@dataclass(frozen=True)
class ApprovalUsed(Event):
    """A node that the operator had let in fetched its credential."""

    name: ClassVar[str] = "approval.used"
    level: ClassVar[Level] = Level.INFO
    node: str
    role: str
    address: str


@dataclass(frozen=True)
class JoinAttempt(Event):
    """The joiner tried one address of the token: what came of it."""

    name: ClassVar[str] = "join.attempt"
    level: ClassVar[Level] = Level.INFO
    address: str
    outcome: str
    after_ms: float


@dataclass(frozen=True)
class JoinSucceeded(Event):
    """This node holds a credential of the mesh now."""

    name: ClassVar[str] = "join.succeeded"
    level: ClassVar[Level] = Level.INFO
    mesh: str
    through: str
    role: str


@dataclass(frozen=True)
class JoinFailed(Event):
    """No pinned member let this node in."""

    name: ClassVar[str] = "join.failed"
    level: ClassVar[Level] = Level.ERROR
    code: str
    text: str
    advice: str


@dataclass(frozen=True)
class NodeRemoved(Event):
    """A revocation took effect: the node and every chain through it."""

    name: ClassVar[str] = "node.removed"
    level: ClassVar[Level] = Level.WARNING
    node: str
    by: str
    descendants: int
