"""A token comes back: is it good, for this node, now, and what does it give?

What lives here: `Redeemer` and its answers `Admitted` and `Refused`. What does not: the token's text
(`proto.token`), counting (`meshnode.admission.invite_book`), proving the joiner's key (the transport did). Called by
`meshnode.admission.admission`.

The checks, in order, each with its own code: the source's failures (`too_many_failures`), the text (`malformed`), the
mesh (`wrong_mesh`), the joiner (`names_self`, `removed`), the right member (`not_the_issuer`), the invite's life
(`revoked`, `expired`), rights (`role_not_allowed`), and uses last (`used_up`), counted on disk before the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshnode.admission.advice import ADVICE
from meshnode.admission.errors import UnusableInvite
from meshnode.admission.failures import FailureLimit
from meshnode.admission.invite_book import InviteBook
from meshnode.admission.issuing import Issuer
from meshnode.admission.joining import parsed_invite
from meshnode.admission.roll import MemberRoll
from meshnode.durable import StateError
from proto.credential import BadCredential, exceeds, read_chain, standing_of
from proto.ids import NodeId, short
from proto.messages import Refusal, RefusalCode
from proto.parts import Role
from proto.times import CLOCK_TOLERANCE_S, utc_text
from proto.token import UNLIMITED_LIFETIME_S, InviteToken


@dataclass(frozen=True, slots=True)
class Admitted:
    """The joiner is in: its chain, and what to report. `again` where it had redeemed this token before."""

    chain: tuple[bytes, ...]
    token_id: bytes
    role: Role
    uses_left: int | None
    again: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The joiner is not let in. `is_silent` asks the transport to close without a word."""

    code: RefusalCode
    text: str
    found: str = ""
    required: str = ""
    is_silent: bool = False

    @property
    def advice(self) -> str:
        """What the joiner's operator can do."""
        return ADVICE[self.code]

    def message(self) -> Refusal:
        """What goes over the wire."""
        return Refusal(self.code, self.text, self.found, self.required)


class _No(Exception):
    """Carries a refusal out of the checks."""

    def __init__(self, code: RefusalCode, text: str, found: str = "", required: str = "") -> None:
        self.refused = Refused(code, text, found, required)
        super().__init__(text)


class Redeemer:
    """Redeems tokens at the member `own`, for as long as `issuer` may let others in."""

    def __init__(self, own: NodeId, roll: MemberRoll, book: InviteBook) -> None:
        self._own = own
        self._roll = roll
        self._book = book
        self._limit = FailureLimit()

    def redeem(
        self,
        text: str,
        joiner: NodeId,
        source_address: str,
        now_unix_s: int,
        now_s: float,
        *,
        issuer: Issuer,
        wanted: Role | None = None,
    ) -> Admitted | Refused:
        """Let `joiner` in by the token in `text`, with the role it wants or the token's own, or say why not.

        `now_unix_s` is this member's wall clock, which judges the expiry; `now_s` a monotonic one, which counts the
        failures of `source_address` (`1.2.3.4:4411`). The joiner's key was proved before.
        """
        if self._limit.is_silenced(source_address, now_s):
            text = "too many failed attempts from this address"
            return Refused(RefusalCode.TOO_MANY_FAILURES, text, is_silent=True)
        try:
            token = self._fitting(text, joiner)
            self._in_force(token, now_unix_s)
            role = self._granted_role(token, joiner, wanted, issuer, now_unix_s)
            return self._counted(token, joiner, role, issuer, now_unix_s)
        except _No as no:
            if no.refused.code is not RefusalCode.BUSY:
                self._limit.failed(source_address, now_s)
            return no.refused

    def _fitting(self, text: str, joiner: NodeId) -> InviteToken:
        """The token, whole, of this mesh, for another node, and redeemable here."""
        try:
            token = parsed_invite(text)
        except UnusableInvite as error:
            raise _No(error.code, error.text.partition(": ")[2], error.found, error.required) from error
        if token.mesh != self._roll.mesh:
            facts = (f"mesh {short(token.mesh)}", f"mesh {short(self._roll.mesh)}")
            raise _No(RefusalCode.WRONG_MESH, "the invite is for another mesh", *facts)
        pinned = [member.node for member in token.members]
        if joiner in pinned:
            raise _No(RefusalCode.NAMES_SELF, "the invite points at the joiner itself", short(joiner), "another node")
        if self._own not in (pinned if token.uses is None else pinned[:1]):
            facts = (short(self._own), short(token.issuer))
            raise _No(RefusalCode.NOT_THE_ISSUER, "this member can't redeem it, only its issuer can", *facts)
        return token

    def _in_force(self, token: InviteToken, now_unix_s: int) -> None:
        """Neither revoked nor expired."""
        if self._roll.revoked.voids(token.token_id, token.issuer):
            raise _No(RefusalCode.REVOKED, "the invite was revoked")
        if token.issuer == self._own:
            self._in_own_book(token)
        if now_unix_s > token.expires_at_unix_s + CLOCK_TOLERANCE_S:
            clock = f"the member's clock reads {utc_text(now_unix_s)}"
            until = f"until {utc_text(token.expires_at_unix_s)}"
            raise _No(RefusalCode.EXPIRED, "the invite has expired", clock, until)
        longest = now_unix_s + UNLIMITED_LIFETIME_S + CLOCK_TOLERANCE_S
        if token.uses is None and token.expires_at_unix_s > longest:
            until = utc_text(token.expires_at_unix_s)
            raise _No(RefusalCode.MALFORMED, "an unlimited invite must end within 7 days", until, utc_text(longest))

    def _in_own_book(self, token: InviteToken) -> None:
        """An own token that the book does not know can't be counted any more: the state was lost, or it is very old."""
        invite = self._book.find(token.token_id)
        if invite is None:
            raise _No(RefusalCode.REVOKED, "the member that made the invite has no record of it any more")
        if invite.revoked:
            raise _No(RefusalCode.REVOKED, "the invite was revoked")

    def _granted_role(
        self, token: InviteToken, joiner: NodeId, wanted: Role | None, issuer: Issuer, now_unix_s: int
    ) -> Role:
        role = wanted or token.role
        if role is Role.WORKER and token.role is Role.CLIENT:
            raise _No(RefusalCode.ROLE_NOT_ALLOWED, "the invite is for a client", role.value, token.role.value)
        if token.issuer != self._own:
            self._issuer_still_may(token, now_unix_s)
        if (obstacle := issuer.obstacle(joiner, role)) is not None:
            raise _No(RefusalCode.ROLE_NOT_ALLOWED, "this member can't grant what the invite promises", obstacle)
        above = () if issuer.lineage is None else issuer.lineage.nodes
        if self._roll.revoked.cut_in((*above, joiner)) is not None:
            raise _No(RefusalCode.REMOVED, "this node was removed from the mesh", short(joiner), "a node never removed")
        return role

    def _issuer_still_may(self, token: InviteToken, now_unix_s: int) -> None:
        """Another member's unlimited token: its issuer must be a member that may give these rights now."""
        try:
            lineage = read_chain(token.chain, self._roll.mesh, token.issuer)
            standing_of(lineage, now_unix_s, self._roll.revoked)
        except BadCredential as error:
            sentence = "the member that made the invite is no member any more"
            raise _No(RefusalCode.REVOKED, sentence, error.found, error.required) from error
        more = exceeds(lineage.last, token.role, lineage.last.expires_at_unix_s)
        if more is not None or not lineage.last.may_invite:
            sentence = "the member that made the invite had no right to"
            raise _No(RefusalCode.ROLE_NOT_ALLOWED, sentence, more or "may not invite", "at most the issuer's rights")

    def _counted(self, token: InviteToken, joiner: NodeId, role: Role, issuer: Issuer, now_unix_s: int) -> Admitted:
        ends = None if token.member_for_s is None else now_unix_s + token.member_for_s
        chain = issuer.issue(
            joiner,
            role,
            may_invite=token.may_invite,
            now_unix_s=now_unix_s,
            expires_at_unix_s=ends,
            token_id=token.token_id,
        )
        again = self._book.has_redeemed(token.token_id, joiner)
        left = None if token.issuer != self._own else self._count_use(token.token_id, joiner, again)
        return Admitted(chain, token.token_id, role, left, again)

    def _count_use(self, token_id: bytes, joiner: NodeId, again: bool) -> int | None:
        invite = self._book.find(token_id)
        if invite is not None and invite.uses_left == 0 and not again:
            used = f"used {invite.redeemed_count} of {invite.uses}"
            raise _No(RefusalCode.USED_UP, "the invite was used up by other nodes", used, "a use left")
        try:
            return self._book.count(token_id, joiner).uses_left
        except StateError as error:
            raise _No(RefusalCode.BUSY, "the member can't store that the invite is used", error.found) from error
