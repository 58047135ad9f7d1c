"""Calls: datagrams to everybody on a local network, from a node that misses members.

A house whose router was set up anew has all its machines at other addresses. If all of them were down meanwhile, nobody
has seen anybody move, and no address that one remembers is right. A call goes to the broadcast address of each local
network, at the ports that the missing members had, and leaves from the caller's own socket, so that its source is where
the caller answers. Nobody replies to it: a member that hears it dials the caller, with the caller's key pinned.

What lives here: a call's form and who is behind it. What does not: when to call, and what to make of one
(`meshnode.calling`).

The form: a byte below 16, which no QUIC, DTLS or STUN packet has (RFC 9443, section 2), the letters `call`, 16 random
bytes, and BLAKE2b-128 (RFC 7693) over them and the caller's node id as text, keyed with the mesh's public key. So a
stranger that listens learns that a node is there, and neither which one nor of what mesh. A call can be repeated by
whoever heard it, from any address: then that address is dialled, shows another key or none, and that is all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Final

from proto.ids import MeshId, NodeId, public_key_of

MAGIC: Final = b"\x05call"
NONCE_BYTES: Final = 16
TAG_BYTES: Final = 16
CALL_BYTES: Final = len(MAGIC) + NONCE_BYTES + TAG_BYTES


def call_packet(mesh: MeshId, caller: NodeId) -> bytes:
    """A new call of `caller`."""
    nonce = os.urandom(NONCE_BYTES)
    return MAGIC + nonce + _tag(public_key_of(mesh), nonce, caller)


def is_call(data: bytes) -> bool:
    """True for what has a call's form."""
    return len(data) == CALL_BYTES and data.startswith(MAGIC)


def caller_of(data: bytes, mesh: MeshId, members: Iterable[NodeId]) -> NodeId | None:
    """Which of `members` the call `data` is from; None where it is from nobody of them."""
    key, nonce, tag = public_key_of(mesh), data[len(MAGIC) : -TAG_BYTES], data[-TAG_BYTES:]
    return next((node for node in members if _tag(key, nonce, node) == tag), None)


def _tag(key: bytes, nonce: bytes, caller: NodeId) -> bytes:
    return hashlib.blake2b(nonce + caller.encode("ascii"), key=key, digest_size=TAG_BYTES).digest()
