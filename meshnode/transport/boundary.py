"""What the transport asks of the rooms above it, as small protocols.

What lives here: `LinkObserver` (implemented by the daemon's mesh driver), `AdmissionGate` (over `meshnode.admission`)
and `LocalIdentity` (`meshnode.identity`). What does not: any implementation. They are called synchronously inside the
event loop, so they must not block; durable counting of a token's uses is the one exception, bounded by the failure
limit of admission.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import Certificate

from meshnode.events import Event
from meshnode.membership.view import LinkFacts
from proto.ids import BootId, NodeId
from proto.messages import Message, Refusal
from proto.parts import Role


class LocalIdentity(Protocol):
    """Who this process is."""

    @property
    def node(self) -> NodeId:
        """This node's id."""

    @property
    def boot_id(self) -> BootId:
        """Drawn at this start."""

    @property
    def certificate(self) -> Certificate:
        """A self-signed certificate of the node's key, for TLS."""

    @property
    def private_key(self) -> Ed25519PrivateKey:
        """The node's key."""

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature of 64 bytes."""


class LinkObserver(Protocol):
    """Told of everything that happens on links. A call never raises back into the transport on purpose."""

    def link_up(self, peer: NodeId, facts: LinkFacts, boot_id: BootId, incarnation_floor: int) -> None:
        """An authenticated link to `peer` stands. `incarnation_floor` is the highest incarnation of *this* node that
        the peer remembers; this node goes above it. Called again without a `link_down` between where a better or
        newer link took the old one's place: frames that were on their way may be lost then."""

    def link_down(self, peer: NodeId, code: str, reason: str, by_peer: bool) -> None:
        """The link ended. `code` is a `RefusalCode` value, or `idle_timeout` or `connection_lost`."""

    def dial_failed(self, peer: NodeId, reason: str) -> None:
        """A dial ended without a link: a `RefusalCode` value, or `unreachable`."""

    def message(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """A control message, with the time its last packet reached this machine."""

    def datagram(self, peer: NodeId, message: Message, received_at_s: float) -> None:
        """A datagram message, with the time it reached this machine."""

    def migrated(self, peer: NodeId, old: str, new: str) -> None:
        """The peer answers at another address now; the link lives on."""

    def observed_address(self, peer: NodeId, address: str) -> None:
        """`peer` sees this node at `address`."""

    def path_trouble(self, peer: NodeId, reason: str) -> None:
        """A sign, no verdict, that a linked peer may be gone (such as an ICMP refusal): worth a burst of probes."""

    def identity_in_use(self, peer: NodeId, text: str) -> None:
        """`peer` has a living link to another process with this node's key, which proved it: this process must stop."""

    def peer_floor(self, node: NodeId) -> int:
        """The highest incarnation of `node` seen so far; 0 where it is not known."""

    def emit(self, event: Event) -> None:
        """Report `event` to the log and the event stream."""


class AdmissionGate(Protocol):
    """Decides who is a member. Every answer is about the mesh of the endpoint that asks."""

    def own_chain(self) -> tuple[bytes, ...]:
        """This node's credential chain, root's first; empty while it has not been admitted."""

    def check_chain(self, node: NodeId, chain: tuple[bytes, ...]) -> Refusal | None:
        """None where `chain` proves `node` a member now, else why not (`bad_credential`, `removed`, `wrong_mesh`)."""

    def redeem(
        self, token: str, joiner: NodeId, source_address: str, role: Role | None = None
    ) -> tuple[bytes, ...] | Refusal:
        """Redeem an invite token for `joiner`, who has proved its key, with the `role` it asks for (None: the
        token's): its new chain, or why not. `too_many_failures` asks to close the link without a word."""

    def is_revoked(self, node: NodeId) -> bool:
        """True where a valid revocation names `node` or an ancestor of its chain."""
