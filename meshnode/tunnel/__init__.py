"""Authenticated byte tunnels between nodes, with back-pressure, over TCP, the QUIC link or a neighbour.

What others may use is in `__all__`.
"""

from meshnode.tunnel.opening import (
    Carrier,
    Opening,
    Purpose,
    TunnelError,
    TunnelRefusal,
    TunnelRefused,
    TunnelUnavailable,
)
from meshnode.tunnel.owned import listen_for_owner
from meshnode.tunnel.settings import TunnelSettings
from meshnode.tunnel.splicing import splice
from meshnode.tunnel.tunnel import Tunnel
from meshnode.tunnel.tunnels import Admit, Handler, Tunnels

__all__ = [
    "Admit",
    "Carrier",
    "Handler",
    "Opening",
    "Purpose",
    "Tunnel",
    "TunnelError",
    "TunnelRefusal",
    "TunnelRefused",
    "TunnelSettings",
    "TunnelUnavailable",
    "Tunnels",
    "listen_for_owner",
    "splice",
]
