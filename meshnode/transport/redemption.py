"""Getting into a mesh by an invite token.

What lives here: `Redemption`, one try over all the addresses of a token, its outcomes, and how a member hands over its
answer (`answer_token`). What does not: what a token is worth (the member's `AdmissionGate`), what is done with the
credential (the daemon). Used by the endpoint.

A counted token is redeemed at its issuer only, an unlimited one at any member it pins. All addresses race; the one that
leads proves that it holds a pinned member's key before it is sent the token. An address that accepts and never answers
costs its time-out, then the next leads. A refusal that another member might not give (it is busy, it speaks
another version) lets the race go on; every other one ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import anyio

from meshnode.transport.addresses import MalformedAddress, parse_address
from meshnode.transport.dialler import Target
from meshnode.transport.link import Link
from proto.errors import WireError
from proto.ids import MeshId, NodeId, short
from proto.messages import Refusal, RefusalCode
from proto.parts import Role
from proto.token import InviteToken, parse_token

ANOTHER_MAY_DO = frozenset(
    {
        RefusalCode.BUSY,
        RefusalCode.LINK_LIMIT,
        RefusalCode.NOT_THE_ISSUER,
        RefusalCode.NO_COMMON_VERSION,
        RefusalCode.BAD_CREDENTIAL,
        RefusalCode.PROTOCOL_ERROR,
    }
)
"""Refusals that concern the member asked, not the token."""


@dataclass(frozen=True, slots=True)
class Redeemed:
    """This node is a member now: the chain it was given, by whom, and at which address that member sees it."""

    mesh: MeshId
    chain: tuple[bytes, ...]
    through: NodeId
    observed_address: str


class JoinRefused(Exception):
    """No member let this node in. `code` says why; `text`, `found` and `required` are the member's words, where one
    answered; `outcomes` tells of every address that was tried."""

    def __init__(self, refusal: Refusal, outcomes: str = "") -> None:
        self.code = refusal.code
        self.text = refusal.text
        self.found = refusal.found
        self.required = refusal.required
        self.outcomes = outcomes
        super().__init__(f"{refusal.code.value}: {refusal.text}" + (f" ({outcomes})" if outcomes else ""))


class Redemption:
    """One try: what is said for a token, the role asked for, whom to say it to, and, in the end, what came of it."""

    def __init__(self, text: str, role: Role | None, targets: tuple[Target, ...]) -> None:
        self.text = text
        self.role = role
        self.targets = targets
        self.finished = anyio.Event()
        self._redeemed: Redeemed | None = None
        self._refusal = Refusal(RefusalCode.INVITER_UNREACHABLE, "no pinned member answered at any of its addresses")

    @classmethod
    def of_invite(cls, text: str, role: Role | None, own: NodeId, mesh: MeshId) -> Redemption:
        """The try with an invite token. Raises `JoinRefused` where no member needs to be asked: `malformed`,
        `wrong_mesh`, `names_self`."""
        try:
            token = parse_token(text)
        except WireError as error:
            raise JoinRefused(Refusal(RefusalCode.MALFORMED, str(error), error.found, error.expected)) from error
        if token.mesh != mesh:
            sentence = "the invite is for another mesh"
            raise JoinRefused(Refusal(RefusalCode.WRONG_MESH, sentence, short(token.mesh), short(mesh)))
        if any(member.node == own for member in token.members):
            raise JoinRefused(Refusal(RefusalCode.NAMES_SELF, "the invite points at this very node"))
        return cls(text, role, _targets_of(token))

    @classmethod
    def at(cls, text: str, role: Role | None, member: NodeId, addresses: Sequence[str]) -> Redemption:
        """The try with a text that is no token, at one member whose key is pinned."""
        return cls(text, role, tuple(Target(member, name) for name in _names(addresses)))

    def succeed(self, redeemed: Redeemed) -> None:
        """A member let this node in."""
        self._redeemed = redeemed
        self.finished.set()

    def refused(self, refusal: Refusal) -> bool:
        """A member refused; True where the race may go on."""
        self._refusal = refusal
        if refusal.code in ANOTHER_MAY_DO:
            return True
        self.finished.set()
        return False

    def lose(self) -> None:
        """No address is left."""
        self.finished.set()

    def result(self, outcomes: str) -> Redeemed:
        """What came of it. Raises `JoinRefused`."""
        if self._redeemed is None:
            raise JoinRefused(self._refusal, outcomes)
        return self._redeemed


def _targets_of(token: InviteToken) -> tuple[Target, ...]:
    """Whom to try where: every member's first address, then every member's second, and so on."""
    members = token.members[:1] if token.uses is not None else token.members
    by_member = [[Target(member.node, name) for name in _names(member.addresses)] for member in members]
    return tuple(dict.fromkeys(target for target in chain(*zip_longest(*by_member)) if target is not None))


def _names(addresses: Sequence[str]) -> list[tuple[str, int] | tuple[str, int, int, int]]:
    found = []
    for address in addresses:
        try:
            found.append(parse_address(address))
        except MalformedAddress:
            # Signed by the issuer, so it is its mistake, and the other addresses may do.
            continue
    return found


def answer_token(link: Link, answer: tuple[bytes, ...] | Refusal, peer_floor: int, now_s: float) -> None:
    """The member's side: hand the chain that was issued, or the refusal, to the joiner behind `link`."""
    if not isinstance(answer, Refusal):
        link.welcome(peer_floor=peer_floor, now_s=now_s, issued_chain=answer)
    elif answer.code is RefusalCode.TOO_MANY_FAILURES:
        # Silence: whoever guesses learns nothing, not even that it is being limited.
        link.channel.abandon("too many failed invites from this source")
    else:
        link.refuse(answer, now_s)
