"""The invites this node made, and who used them: durable, so that a crash never gives a use away twice.

What lives here: `Invite`, `InviteBook`. What does not: the token's text, which is shown once and stored nowhere
(`proto.token`), whether a redemption is right (`meshnode.admission.redeeming`). Called by inviting and redeeming.

A use is counted on disk before the answer goes out. A crash between the two costs nothing: the joiner asks again with
the same key, finds itself in the book, and no further use is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct, structs

from meshnode.durable import VersionedFile
from proto.ids import NodeId
from proto.parts import Role
from proto.shapes import WireCounter, WireNodeId, WireTokenId, WireUnixTime
from proto.times import CLOCK_TOLERANCE_S
from proto.token import MAX_USES

MAX_INVITES: Final = 1000
KEPT_AFTER_EXPIRY_S: Final = 30 * 24 * 3600
"""An expired invite stays listed for 30 days, so that `invites` can tell who came by it."""


class Invite(Struct, frozen=True):
    """One invite as its maker remembers it. `uses` is None for an unlimited one; `redeemed_by` lists the first 1,000
    nodes that used it, `redeemed_count` counts all."""

    token_id: WireTokenId
    role: Role
    may_invite: bool
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)] | None
    made_at_unix_s: WireUnixTime
    expires_at_unix_s: WireUnixTime
    redeemed_by: Annotated[tuple[WireNodeId, ...], Meta(max_length=MAX_USES)] = ()
    redeemed_count: WireCounter = 0
    revoked: bool = False

    @property
    def uses_left(self) -> int | None:
        """How many more nodes it lets in; None for any number."""
        return None if self.uses is None else max(0, self.uses - self.redeemed_count)

    def is_expired(self, now_unix_s: int) -> bool:
        """True past its expiry and the tolerance between two clocks."""
        return now_unix_s > self.expires_at_unix_s + CLOCK_TOLERANCE_S


class InvitesFile(Struct, frozen=True):
    """`invites.json`."""

    invites: Annotated[tuple[Invite, ...], Meta(max_length=2 * MAX_INVITES)] = ()


class BookFull(Exception):
    """1,000 invites are open: `advice` says what makes room."""

    advice = "revoke invites that are no longer needed (meshnode invites)"

    def __init__(self) -> None:
        super().__init__(f"{MAX_INVITES} invites are open already; {self.advice}")


class InviteBook:
    """All invites made here. Every change is on disk when its method returns; where the disk refuses, the method raises
    `StateError` and nothing is changed."""

    def __init__(self, file: VersionedFile[InvitesFile]) -> None:
        self._file = file
        stored = file.load() or InvitesFile()
        self._invites = {invite.token_id: invite for invite in stored.invites}

    def invites(self) -> tuple[Invite, ...]:
        """All of them, the newest first."""
        return tuple(sorted(self._invites.values(), key=lambda one: (-one.made_at_unix_s, one.token_id)))

    def find(self, token_id: bytes) -> Invite | None:
        """The invite of this id; None where it was not made here."""
        return self._invites.get(token_id)

    def add(self, invite: Invite, now_unix_s: int) -> None:
        """Open a new one, dropping what expired 30 days ago. Raises `BookFull`."""
        kept = [one for one in self._invites.values() if now_unix_s <= one.expires_at_unix_s + KEPT_AFTER_EXPIRY_S]
        if len(kept) >= MAX_INVITES:
            # Room is made by the ended ones, oldest first, before an open one stands in the way.
            kept = [one for one in kept if not one.is_expired(now_unix_s) and not one.revoked and one.uses_left != 0]
        if len(kept) >= MAX_INVITES:
            raise BookFull
        self._store([*kept, invite])

    def has_redeemed(self, token_id: bytes, node: NodeId) -> bool:
        """True where `node` used this invite before."""
        invite = self._invites.get(token_id)
        return invite is not None and node in invite.redeemed_by

    def count(self, token_id: bytes, node: NodeId) -> Invite:
        """Count one use by `node` durably and return the invite after it; nothing is counted for a node that used it
        before. Raises `KeyError` for an unknown invite and `ValueError` where no use is left: callers look first."""
        invite = self._invites[token_id]
        if node in invite.redeemed_by:
            return invite
        if invite.uses_left == 0:
            raise ValueError(f"invite {token_id.hex()} has no use left")
        listed = (*invite.redeemed_by, node)[:MAX_USES]
        counted = structs.replace(invite, redeemed_by=listed, redeemed_count=invite.redeemed_count + 1)
        self._replace(counted)
        return counted

    def revoke(self, token_id: bytes) -> Invite:
        """Let nobody in by it any more. Raises `KeyError` for an unknown invite."""
        revoked = structs.replace(self._invites[token_id], revoked=True)
        self._replace(revoked)
        return revoked

    def _replace(self, invite: Invite) -> None:
        self._store([*(one for one in self._invites.values() if one.token_id != invite.token_id), invite])

    def _store(self, invites: Sequence[Invite]) -> None:
        self._file.save(InvitesFile(tuple(invites)))
        self._invites = {invite.token_id: invite for invite in invites}
