"""Two processes with one key: what this node says to each of them, and what it believes of a double of its own.

What lives here: `Doubles`. What does not: noticing a second process (`link_table`), asking the first one whether it
lives (`judge`), and the proofs themselves (`life`). Owned by the reception; runs in the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from meshnode.transport.boundary import LocalIdentity
from meshnode.transport.life import is_about, proves_double, proves_life, sign_of_life
from meshnode.transport.link import Link
from meshnode.transport.reports import Reports
from proto.ids import BootId, MeshId, NodeId
from proto.messages import IdentityConflict, LifeProof, LifeRequest, LifeSign, Message, Refusal, RefusalCode


class Doubles:
    """`send(peer, message, coalesce)` sends over the peer's link; `own_addresses` tells where this node listens."""

    def __init__(
        self,
        identity: LocalIdentity,
        mesh: MeshId,
        clock: Callable[[], float],
        *,
        send: Callable[[NodeId, Message, str | None], None],
        own_addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        self._identity = identity
        self._mesh = mesh
        self._clock = clock
        self._send = send
        self._own_addresses = own_addresses

    def is_proved(self, refusal: Refusal) -> bool:
        """Whether an `identity_in_use` that this node met is to be believed."""
        return proves_life(self._identity.node, self._mesh, refusal.life, self._identity.boot_id)

    def is_sign(self, link: Link, sign: LifeSign) -> bool:
        """Whether the peer of `link` did sign that it lives."""
        return link.peer is not None and proves_life(link.peer, self._mesh, sign.proof, BootId(sign.newcomer))

    def asked(self, peer: NodeId, request: LifeRequest) -> None:
        """Show a newcomer with this node's key that this process lives."""
        if (sign := sign_of_life(self._identity, self._mesh, request.newcomer)) is not None:
            self._send(peer, sign, "life_sign")

    def told(self, link: Link, word: IdentityConflict, reports: Reports) -> None:
        """A peer says that it refused another process with this node's key."""
        proved = link.peer is not None and proves_double(self._identity, self._mesh, link.peer, word.challenge)
        reports.told_of_rival(link, word, proved=proved)

    def refuse_own(self, link: Link, boot_id: BootId, reports: Reports) -> None:
        """The dialler of `link` has this node's own key."""
        now_s = self._clock()
        if boot_id == self._identity.boot_id:
            link.refuse(Refusal(RefusalCode.NAMES_SELF, "this node dialled itself"), now_s)
            return
        here, there = ", ".join(self._own_addresses()), link.address_text()
        reports.conflict(self._identity.node, here, there)
        sentence = "a living process with this node's key answers here"
        sign = sign_of_life(self._identity, self._mesh, boot_id)
        proof = None if sign is None else sign.proof
        link.refuse(Refusal(RefusalCode.IDENTITY_IN_USE, sentence, there, here, proof), now_s)

    def refuse_newer(self, old: Link, new: Link, proof: LifeProof | None, reports: Reports) -> None:
        """Two processes of one peer live: `old` stays, and has shown so to `new` with `proof`."""
        assert new.peer is not None, "a judged link has a peer"
        here, there = old.address_text(), new.address_text()
        reports.conflict(new.peer, here, there)
        # Both processes hear of it with both addresses: the old one goes on, the new one is refused. What would not be
        # believed is not sent: the old one was no peer yet when the new one was challenged, or the new one was dialled.
        signed = new.signed_challenge()
        if signed is not None and is_about(signed.nonce, self._mesh, old.boot_id):
            self._send(new.peer, IdentityConflict(here, there, signed), None)
        sentence = "another living process has this node's key"
        new.refuse(Refusal(RefusalCode.IDENTITY_IN_USE, sentence, there, here, proof), self._clock())
