"""Membership, sans-IO: records and their gossip, failure detection, RTT, coordinates, links to keep.

Others use `Membership` and its inputs, the `MeshView` it hands out, and the effects it asks for; all else is private.
"""

from meshnode.membership.effects import (
    CloseLink,
    Deliver,
    Dial,
    Effect,
    Emit,
    PersistIncarnation,
    Send,
    SendDatagram,
)
from meshnode.membership.local import LocalNode, OfferDraft
from meshnode.membership.machine import Membership
from meshnode.membership.settings import LAN, LOCAL, PRESETS, WAN, MembershipSettings
from meshnode.membership.trust import Rejection, Trust
from meshnode.membership.view import LinkFacts, MeshView, NodeView, PathKind, RttFigure, RttSource, Status

__all__ = [
    "LAN",
    "LOCAL",
    "PRESETS",
    "WAN",
    "CloseLink",
    "Deliver",
    "Dial",
    "Effect",
    "Emit",
    "LinkFacts",
    "LocalNode",
    "Membership",
    "MembershipSettings",
    "MeshView",
    "NodeView",
    "OfferDraft",
    "PathKind",
    "PersistIncarnation",
    "Rejection",
    "RttFigure",
    "RttSource",
    "Send",
    "SendDatagram",
    "Status",
    "Trust",
]
