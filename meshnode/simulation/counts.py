"""What a simulation counts: bytes of gossip and probes by node, deaths and suspicions by victim.

Gossip bytes are those of the application's frames as sent (`ViewHash`, `Digest`, `Delta`, rows), probes apart, by the
definition of the targets. UDP bytes are an estimate: each message alone in a packet, plus its share of
acknowledgements."""

from __future__ import annotations

from collections import Counter, defaultdict
from hashlib import blake2b

import msgspec

from meshnode.events import Event, PeerDead, PeerSuspect, PeerUpdated
from meshnode.simulation.clockwork import Clockwork
from proto.ids import NodeId
from proto.messages import Ack, Delta, IndirectAck, Message, Ping, PingRequest
from proto.parts import PartKind, SignedPart

_encoder = msgspec.msgpack.Encoder()
"""The same msgpack as the wire codec's (a test holds them equal in size), without its checks."""
_NO_PART_BYTES = len(_encoder.encode(SignedPart(PartKind.OFFER, b"", bytes(64)))) - len(PartKind.OFFER)
PROBES = frozenset({Ping, Ack, PingRequest, IndirectAck})
LENGTH_BYTES = 4
PACKET_OVERHEAD_BYTES = 28 + 30
"""IPv4 and UDP headers, then QUIC's short header, frame header and authentication tag."""
PROBE_BYTES = 70
"""A typical ping or ack; not encoded one by one, to save time."""


class Counts:
    """Running totals since `start_over`."""

    def __init__(self, clock: Clockwork) -> None:
        self._clock = clock
        self.by_event: Counter[str] = Counter()
        self.deaths: list[tuple[float, NodeId, NodeId]] = []
        """(moment, observer, victim)."""
        self.suspicions: list[tuple[float, NodeId, NodeId]] = []
        self._digest = blake2b(digest_size=8)
        self._last: Message | None = None
        self._last_bytes = 0
        self.start_over()

    def start_over(self) -> None:
        """Counts bytes anew from now on."""
        self.since_s = self._clock.now_s
        self.gossip_bytes: defaultdict[NodeId, int] = defaultdict(int)
        self.gossip_by_type: Counter[str] = Counter()
        self.messages = 0
        self.probes = 0
        """Datagrams count as such, all of them."""

    def control(self, node: NodeId, message: Message) -> None:
        kind = type(message)
        if kind in PROBES:
            self.probes += 1
            return
        if message is not self._last:
            # One delta often goes to many peers: it is measured once.
            self._last, self._last_bytes = message, LENGTH_BYTES + size_bytes(message)
        self.messages += 1
        self.gossip_bytes[node] += self._last_bytes
        self.gossip_by_type[kind.__name__] += self._last_bytes

    def event(self, node: NodeId, event: Event) -> None:
        self.by_event[event.name] += 1
        if type(event) is PeerUpdated:
            return
        self._digest.update(_encoder.encode((self._clock.now_s, node, event.name, event)))
        if isinstance(event, PeerDead):
            self.deaths.append((self._clock.now_s, node, NodeId(event.peer)))
        elif isinstance(event, PeerSuspect):
            self.suspicions.append((self._clock.now_s, node, NodeId(event.peer)))

    def digest(self) -> bytes:
        """8 bytes over every event so far but updates, with moment and observer, and over the number of messages: the
        same in two runs that went alike."""
        whole = self._digest.copy()
        whole.update(repr((sorted(self.by_event.items()), self.messages, self.probes)).encode())
        return whole.digest()

    def gossip_bytes_per_s(self, nodes: int) -> float:
        """Mean gossip bytes a node sent per second since `start_over`."""
        duration_s = max(1e-9, self._clock.now_s - self.since_s)
        return sum(self.gossip_bytes.values()) / nodes / duration_s

    def busiest_bytes_per_s(self) -> float:
        """The same of the node that sent most."""
        duration_s = max(1e-9, self._clock.now_s - self.since_s)
        return max(self.gossip_bytes.values(), default=0) / duration_s

    def udp_bytes_per_s(self, nodes: int) -> float:
        """Estimated UDP bytes a node sent per second, probes included."""
        duration_s = max(1e-9, self._clock.now_s - self.since_s)
        packets = 2 * self.messages + self.probes
        total = sum(self.gossip_bytes.values()) + self.probes * PROBE_BYTES + packets * PACKET_OVERHEAD_BYTES
        return total / nodes / duration_s


def size_bytes(message: Message) -> int:
    """How long `message` is as msgpack. A delta's parts are added up: encoding them would only copy their bodies."""
    if type(message) is not Delta or not message.parts:
        return len(_encoder.encode(message))
    rest_bytes = len(_encoder.encode(Delta((), message.claims, message.urgent)))
    header_bytes = 2 if len(message.parts) > 15 else 0
    return rest_bytes + header_bytes + sum(map(_part_bytes, message.parts))


def _part_bytes(part: SignedPart) -> int:
    size = len(part.body)
    return _NO_PART_BYTES + len(part.kind) + size + (size > 0xFF) + 2 * (size > 0xFFFF)
