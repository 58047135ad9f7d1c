"""What two nodes say to each other to try the paths between them, for an operator who looks for a fault.

What lives here: the shapes. What does not: the packets that are tried (`meshnode.transport.trial`), what they mean
(`meshnode.reaching`, `meshnode.doctor`).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from proto.messages import Message
from proto.parts import MAX_ADDRESSES
from proto.shapes import WireAddress, WireCounter, WireNonce

WireTrialAddresses = Annotated[tuple[WireAddress, ...], Meta(max_length=MAX_ADDRESSES)]


class ReachRequest(Message, frozen=True, tag="reach_request"):
    """Asks the receiver to try the paths between the two nodes. The sender sends trial packets with `nonce` to
    `addresses`, which are the receiver's; the receiver sends some to the sender's, and reports what arrived."""

    nonce: WireNonce
    addresses: WireTrialAddresses


class ReachReport(Message, frozen=True, tag="reach_report"):
    """Answer to a reach request: at which of its `addresses` (by place in the list) trial packets arrived, the largest
    of them, the sender's addresses that the reporter sent its own to, where it sees the sender, and its wall clock."""

    nonce: WireNonce
    arrived: Annotated[tuple[Annotated[int, Meta(ge=0, le=MAX_ADDRESSES - 1)], ...], Meta(max_length=MAX_ADDRESSES)]
    largest_bytes: Annotated[int, Meta(ge=0, le=65_535)]
    tried: WireTrialAddresses
    observed_address: WireAddress | None
    clock_unix_ms: WireCounter
