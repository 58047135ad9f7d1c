"""What a node says about its links: the observer's calls and the events that go with them, made in one place.

What lives here: `Reports`. What does not: deciding any of it. Used by the reception only.
"""

from __future__ import annotations

from collections.abc import Callable

from meshnode.events import (
    AddressDropped,
    HandshakesShed,
    IdentityClaimRejected,
    JoinAttempt,
    LinkDown,
    LinkMigrated,
    LinkRefused,
    LinkReplaced,
    LinkUp,
    PeerIdentityConflict,
    PeerThrottled,
    WireRejected,
)
from meshnode.membership.view import LinkFacts, PathKind
from meshnode.transport.addresses import format_address
from meshnode.transport.boundary import LinkObserver
from meshnode.transport.dialler import Target
from meshnode.transport.link import Link
from meshnode.transport.rate_limit import Overrun
from proto.errors import WireError
from proto.ids import NodeId
from proto.messages import IdentityConflict, Refusal, RefusalCode

SHED_PAUSE_S = 1.0
"""Shortest time between two reports of dropped handshakes."""
RESTARTED = "restarted"
_QUIET = frozenset({RefusalCode.DUPLICATE_LINK, RefusalCode.LEAVING, RefusalCode.APPROVAL_PENDING})
"""Ends that are no refusal in the sense of an event."""
CONFLICT_ADVICE = (
    "two processes run with one node key, such as a copied state directory: stop one of them and give it a state"
    " directory of its own"
)

UNPROVED_ADVICE = (
    "this node keeps running; if a copy of its state directory runs elsewhere, stop one of them; if none does, that"
    " member lies, or is older than this version: upgrade it, or remove it from the mesh"
)


class Reports:
    """Speaks to `observer`. Links that are reported up or down are authenticated. `proves_double` tells whether an
    `identity_in_use` is to be believed."""

    def __init__(
        self, own: NodeId, observer: LinkObserver, clock: Callable[[], float], proves_double: Callable[[Refusal], bool]
    ) -> None:
        self._own = own
        self._proves_double = proves_double
        self._observer = observer
        self._clock = clock
        self._shed_at_s = float("-inf")
        self._shed_dropped = 0
        self._shed_retry_on = False

    def up(self, link: Link, replaced: Link | None, reason: str) -> None:
        """`link` counts from now on, in the place of `replaced` where there was one."""
        peer = _peer_of(link)
        if replaced is not None and replaced.boot_id == link.boot_id:
            self._observer.emit(LinkReplaced(peer, link.address_text(), reason))
            if replaced.address != link.address:
                self.moved(peer, replaced.address_text(), link.address_text())
        else:
            if replaced is not None:
                self.down(replaced, RESTARTED, "the node runs in a newer process", by_peer=True)
            version = str(link.version)
            self._observer.emit(LinkUp(peer, link.address_text(), link.dialled_by_us, version, PathKind.DIRECT))
        facts = LinkFacts(PathKind.DIRECT, link.address_text(), link.dialled_by_us, link.up_since_s)
        self._observer.link_up(peer, facts, link.boot_id, link.own_floor)
        if link.observed_address is not None:
            self._observer.observed_address(peer, link.observed_address)

    def down(self, link: Link, code: str, reason: str, *, by_peer: bool) -> None:
        """`link` counted until now."""
        after_s = round(self._clock() - link.up_since_s, 3)
        self._observer.emit(LinkDown(_peer_of(link), link.address_text(), code, reason, by_peer, after_s))
        self._observer.link_down(_peer_of(link), code, reason, by_peer)

    def moved(self, peer: NodeId, old: str, new: str) -> None:
        """The peer answers at another address."""
        self._observer.emit(LinkMigrated(peer, old, new))
        self._observer.migrated(peer, old, new)

    def refused(self, link: Link, refusal: Refusal, *, by_us: bool) -> None:
        """A link that never counted ended with a refusal."""
        if refusal.code not in _QUIET:
            peer, address = link.peer or link.claimed_peer(), link.address_text()
            code, text = refusal.code.value, refusal.text
            self._observer.emit(LinkRefused(peer, address, by_us, code, text, refusal.found, refusal.required))
        if refusal.code is RefusalCode.IDENTITY_IN_USE and not by_us and link.expected is not None:
            self._told_of_double(link, link.expected, refusal)

    def _told_of_double(self, link: Link, peer: NodeId, refusal: Refusal) -> None:
        if self._proves_double(refusal):
            self.conflict(self._own, refusal.found or "here", refusal.required or "unknown")
            where = f"the other one is at {refusal.required}" if refusal.required else refusal.text
            self._observer.identity_in_use(peer, where)
        else:
            self._observer.emit(IdentityClaimRejected(peer, link.address_text(), UNPROVED_ADVICE))

    def told_of_rival(self, link: Link, told: IdentityConflict, *, proved: bool) -> None:
        """A peer says that it refused another process with this node's key."""
        if proved:
            self.conflict(self._own, told.address, told.other_address)
        else:
            self._observer.emit(IdentityClaimRejected(_peer_of(link), link.address_text(), UNPROVED_ADVICE))

    def rejected(self, link: Link, error: WireError) -> None:
        """A peer's bytes broke a rule of the wire."""
        address, name, field = link.address_text(), error.message, error.field
        self._observer.emit(WireRejected(link.peer, address, name, field, error.found, error.expected))

    def throttled(self, link: Link, overrun: Overrun) -> None:
        """A peer is over its budget."""
        frames_per_s, bytes_per_s = round(overrun.frames_per_s, 1), round(overrun.bytes_per_s, 1)
        self._observer.emit(PeerThrottled(_peer_of(link), frames_per_s, bytes_per_s))

    def wrong_peer(self, link: Link, answered_as: NodeId | None) -> None:
        """An address answered as another node than the one dialled."""
        self._observer.emit(AddressDropped(_peer_of(link), link.address_text(), answered_as or "no node"))

    def conflict(self, node: NodeId, here: str, there: str) -> None:
        """`node` runs twice, at both addresses."""
        self._observer.emit(PeerIdentityConflict(node, here, there, CONFLICT_ADVICE))

    def join_attempt(self, target: Target, outcome: str, after_ms: float) -> None:
        """What became of one address of an invite."""
        self._observer.emit(JoinAttempt(format_address(target.address), outcome, round(after_ms, 1)))

    def shed(self, half_open: int, dropped: int, *, retry_on: bool) -> None:
        """How strangers are being kept off: told when address validation turns on or off, and, at most once a second,
        when attempts were dropped. `dropped` counts since the start."""
        now_s = self._clock()
        turned = retry_on is not self._shed_retry_on
        if not turned and (dropped == self._shed_dropped or now_s - self._shed_at_s < SHED_PAUSE_S):
            return
        self._observer.emit(HandshakesShed(half_open, dropped - self._shed_dropped, retry_on))
        self._shed_at_s, self._shed_dropped, self._shed_retry_on = now_s, dropped, retry_on


def _peer_of(link: Link) -> NodeId:
    assert link.peer is not None, "only links whose peer is known are reported"
    return link.peer
