"""QUIC between nodes: one UDP socket for dialling and accepting, mutual authentication, frames and datagrams.

What others may use is in `__all__`; the protocols they implement are in `meshnode.transport.boundary`.
"""

from meshnode.transport.addresses import MalformedAddress
from meshnode.transport.endpoint import Endpoint
from meshnode.transport.redemption import JoinRefused, Redeemed
from meshnode.transport.settings import TransportSettings
from meshnode.transport.udp import ListenFailed

__all__ = ["Endpoint", "JoinRefused", "ListenFailed", "MalformedAddress", "Redeemed", "TransportSettings"]
