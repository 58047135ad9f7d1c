"""Authenticated byte tunnels between nodes, with back-pressure, over TCP, the QUIC link or a neighbour.

What others may use is in `__all__`.
"""

from meshnode.tunnel.admitting import engine_admission
from meshnode.tunnel.granting import Admit, Handler
from meshnode.tunnel.opening import (
    Carrier,
    Opening,
    Purpose,
    TunnelError,
    TunnelRefusal,
    TunnelRefused,
    TunnelUnavailable,
)
from meshnode.tunnel.owned import listen_for_owner, listen_for_process
from meshnode.tunnel.ports import MeshPaths, TunnelPaths
from meshnode.tunnel.ready_socket import LoopbackStream
from meshnode.tunnel.settings import TunnelSettings
from meshnode.tunnel.splicing import splice
from meshnode.tunnel.tunnel import Tunnel
from meshnode.tunnel.tunnels import Tunnels

__all__ = [
    "Admit",
    "Carrier",
    "Handler",
    "LoopbackStream",
    "MeshPaths",
    "Opening",
    "Purpose",
    "Tunnel",
    "TunnelError",
    "TunnelPaths",
    "TunnelRefusal",
    "TunnelRefused",
    "TunnelSettings",
    "TunnelUnavailable",
    "Tunnels",
    "engine_admission",
    "listen_for_owner",
    "listen_for_process",
    "splice",
]
