"""What a membership state machine asks the outside to do. The daemon (or the simulator) carries these out in order.

Effects are plain data: the machines never touch a socket, a clock or a file. They are structs, which are made several
times faster than frozen dataclasses: every message costs one.
"""

from __future__ import annotations

from msgspec import Struct

from meshnode.events import Event
from proto.ids import NodeId
from proto.messages import Message, RefusalCode


class Send(Struct, frozen=True):
    """Put `message` on the control stream to `peer`. Dropped silently where no link is up (gossip repairs it).

    `coalesce` names a slot: a queued message of the same slot is replaced, so that only the newest state waits behind
    a slow reader. None keeps every message.
    """

    peer: NodeId
    message: Message
    coalesce: str | None = None


class SendDatagram(Struct, frozen=True):
    """Send `message` to `peer` in one datagram, best effort, at once. After a ping the driver says when it left
    (`Membership.ping_left`). `held_since_s`: in an ack, when its ping reached this machine; the driver puts what passed
    until it sends into `hold_us`, which holds for the moment of the input."""

    peer: NodeId
    message: Message
    held_since_s: float | None = None


class Dial(Struct, frozen=True):
    """Try to link to `peer` at `addresses`, best first; the outcome comes back as link_up or dial_failed."""

    peer: NodeId
    addresses: tuple[str, ...]


class CloseLink(Struct, frozen=True):
    """Close the link to `peer`, telling it why."""

    peer: NodeId
    code: RefusalCode
    text: str


class PersistIncarnation(Struct, frozen=True):
    """Store `incarnation` durably *before* any later effect of the same batch is carried out."""

    incarnation: int


class Deliver(Struct, frozen=True):
    """Hand `message`, which came from `peer` by a relayed path and is not membership's own, to the room it is for."""

    peer: NodeId
    message: Message


class Emit(Struct, frozen=True):
    """Report `event` to the log and the event stream."""

    event: Event


Effect = Send | SendDatagram | Dial | CloseLink | PersistIncarnation | Deliver | Emit
