"""What the control interface asks of the daemon, as a protocol, and the one error it answers with.

What lives here: `ControlSurface` and `ControlError`. What does not: HTTP (`meshnode.control.app`) and the daemon, which
implements the surface.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from meshnode.control.shapes import Json
from meshnode.membership.view import MeshView


class ControlError(Exception):
    """A request that can't be carried out: HTTP status, stable code, one sentence, advice, the field it is about."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        advice: str = "",
        field: str = "",
        found: object = None,
        expected: str = "",
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.advice = advice
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(message)

    def to_dict(self) -> Json:
        """The body of the answer."""
        known = {"advice": self.advice, "field": self.field, "found": self.found, "expected": self.expected}
        return {"error": {"code": self.code, "message": self.message, **{k: v for k, v in known.items() if v}}}

    @classmethod
    def bad_field(cls, field: str, found: object, expected: str) -> ControlError:
        """A request's field is wrong."""
        message = f"{field}: found {found!r}, expected {expected}"
        return cls(400, "bad_request", message, field=field, found=str(found)[:80], expected=expected)


class ControlSurface(Protocol):
    """The daemon as the control interface sees it. Everything here may raise `ControlError`."""

    def status(self) -> Json:
        """Node, mesh, addresses, uptime and the mesh in a few figures."""

    def config(self) -> Json:
        """The configuration in force: every key with its value."""

    def view(self) -> MeshView:
        """The newest view."""

    def capacity(self) -> Json:
        """What this machine gives, with the survey's findings."""

    def models(self) -> Json:
        """Models at hand here and in the mesh."""

    def splits(self) -> list[Json]:
        """Splits that this node pursues or holds stages of."""

    def asked(self) -> list[Json]:
        """The newest answers to plans and splits that somebody asked for, the newest first."""

    def verdicts(self) -> list[Json]:
        """Of every node: whether it would take part in a split now, else why not and what to do, whatever the model."""

    def metrics(self) -> str:
        """Figures in Prometheus' text format."""

    def readiness(self) -> tuple[bool, str]:
        """Whether the node does its work, and what it is waiting for otherwise."""

    def invites(self) -> list[Json]:
        """Tokens this node issued, without the tokens themselves."""

    async def create_invite(self, request: Json) -> Json:
        """A new token; the only answer that ever holds one."""

    async def revoke_invite(self, token_id: str) -> Json:
        """Make a token worthless."""

    def approvals(self) -> Json:
        """Nodes that ask to be let in without a token, and for how long they are listened to."""

    async def approve(self, request: Json) -> Json:
        """Open or close the desk for such nodes, or decide on the one with certain words."""

    async def remove_node(self, request: Json) -> Json:
        """Remove a node and every chain through it, or tell what that would take along."""

    async def doctor(self, request: Json) -> Json:
        """This node examined: findings with their grades, and what is known of the path to each peer."""

    async def drain(self, request: Json) -> Json:
        """Take no new stages on this node, or take them again."""

    async def plan(self, request: Json) -> Json:
        """A plan or a shortfall for the mesh as it is now; reserves nothing."""

    def split(self, request: Json) -> AsyncIterator[Json]:
        """Wait for participants and plan: progress, then one entry of type `result`."""
