"""An invite is made: which wishes are sane, whom a joiner may turn to, and the token's text, shown once.

What lives here: `InviteRequest`, `make_invite`. What does not: remembering it (`meshnode.admission.invite_book`).
Called by `meshnode.admission.admission`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from meshnode.admission.errors import InvalidInvite, MayNotInvite
from meshnode.admission.invite_book import Invite
from meshnode.admission.issuing import Issuer
from proto.credential import Lineage, exceeds
from proto.errors import WireError
from proto.ids import NodeId
from proto.parts import Role
from proto.signing import Signer
from proto.token import (
    MAX_MEMBERSHIP_S,
    MAX_PINNED,
    MAX_PINNED_ADDRESSES,
    MAX_TOKEN_LENGTH,
    MAX_USES,
    TOKEN_ID_BYTES,
    UNLIMITED_LIFETIME_S,
    make_token,
)

DEFAULT_LIFETIME_S: Final = 3600
LONGEST_LIFETIME_S: Final = 366 * 24 * 3600

PinnedAddresses = Sequence[tuple[NodeId, Sequence[str]]]
"""Members a joiner may turn to, each with its addresses, best first; the inviting node itself comes first."""


@dataclass(frozen=True, slots=True)
class InviteRequest:
    """What an operator asks for: by default a worker's invite for one use within the hour.

    `uses` None is any number, for which the lifetime is at most 7 days. `member_for_s` ends the memberships it gives
    that long after redeeming; None never ends them."""

    role: Role = Role.WORKER
    may_invite: bool = False
    uses: int | None = 1
    lifetime_s: int = DEFAULT_LIFETIME_S
    member_for_s: int | None = None

    def __post_init__(self) -> None:
        if self.uses is not None and not 1 <= self.uses <= MAX_USES:
            raise InvalidInvite("uses", str(self.uses), f"1 to {MAX_USES}, or unlimited")
        longest = UNLIMITED_LIFETIME_S if self.uses is None else LONGEST_LIFETIME_S
        if not 1 <= self.lifetime_s <= longest:
            kind = "an unlimited invite" if self.uses is None else "an invite"
            expected = f"at most {longest // 86_400} days for {kind}, and at least a second"
            raise InvalidInvite("expires", f"{self.lifetime_s} s", expected)
        if self.member_for_s is not None and not 1 <= self.member_for_s <= MAX_MEMBERSHIP_S:
            raise InvalidInvite("membership", f"{self.member_for_s} s", f"1 to {MAX_MEMBERSHIP_S} s")


@dataclass(frozen=True, slots=True)
class MadeInvite:
    """A new invite. `text` is the bearer secret: it goes to the operator and nowhere else."""

    text: str
    invite: Invite

    def __repr__(self) -> str:
        return f"MadeInvite({self.invite.token_id.hex()})"


def make_invite(
    request: InviteRequest,
    members: PinnedAddresses,
    *,
    key: Signer,
    own: Lineage,
    issuer: Issuer,
    now_unix_s: int,
    random_bytes: Callable[[int], bytes],
) -> MadeInvite:
    """The token for `request`, signed with the node's `key`, whose lineage is `own`.

    Of `members` the first, this node, is pinned; for an unlimited invite two more, since only those can be redeemed
    elsewhere. Raises `MayNotInvite` where this node could not redeem it, `InvalidInvite` where no address is known.
    """
    _check_rights(request, own, issuer)
    pinned = [
        (node, tuple(addresses)[:MAX_PINNED_ADDRESSES])
        for node, addresses in members[: MAX_PINNED if request.uses is None else 1]
        if addresses
    ]
    if not pinned or pinned[0][0] != own.node:
        raise InvalidInvite("addresses", "none of this node", "one where others can reach it (--advertise ADDR:PORT)")
    invite = Invite(
        random_bytes(TOKEN_ID_BYTES),
        request.role,
        request.may_invite,
        request.uses,
        now_unix_s,
        now_unix_s + request.lifetime_s,
    )
    return MadeInvite(_text(invite, pinned, request, key, own, random_bytes(TOKEN_ID_BYTES)), invite)


def _check_rights(request: InviteRequest, own: Lineage, issuer: Issuer) -> None:
    obstacle = issuer.obstacle(None, request.role)
    if obstacle is None and request.uses is None:
        # Others judge an unlimited invite by its maker's own credential, whatever root key the maker keeps.
        obstacle = exceeds(own.last, request.role, own.last.expires_at_unix_s)
    if obstacle is not None:
        raise MayNotInvite(f"this invite can't be given: {obstacle}", "make it at a member that may")


def _text(
    invite: Invite, pinned: PinnedAddresses, request: InviteRequest, key: Signer, own: Lineage, nonce: bytes
) -> str:
    """The token's text; where a deep chain and many addresses make it too long, addresses go, the last ones first."""
    for most in range(MAX_PINNED_ADDRESSES, 0, -1):
        try:
            return make_token(
                key,
                own.mesh,
                members=[(node, addresses[:most]) for node, addresses in pinned],
                token_id=invite.token_id,
                nonce=nonce,
                role=invite.role,
                may_invite=invite.may_invite,
                expires_at_unix_s=invite.expires_at_unix_s,
                uses=invite.uses,
                chain=own.chain if invite.uses is None else (),
                member_for_s=request.member_for_s,
            )
        except WireError as error:
            problem = error
    raise InvalidInvite("addresses", problem.found, f"a token of at most {MAX_TOKEN_LENGTH} characters") from problem
