"""Names of nodes, meshes and process starts, as they stand on the wire and before people.

What lives here: `NodeId`, `MeshId`, `BootId`, `ShortId` and their parsing. What does not: keys and signatures
(`proto.signing`). Called by every room.

A `NodeId` is a node's Ed25519 public key in lowercase base32 without padding (RFC 4648 section 6): 52 characters.
A `MeshId` is the mesh's root public key in the same form. People see the first `SHORT_LENGTH` characters.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import NewType

NodeId = NewType("NodeId", str)
MeshId = NewType("MeshId", str)
BootId = NewType("BootId", bytes)
"""16 random bytes drawn at each start of a process: tells a restart from a second process with the same key."""
ShortId = NewType("ShortId", bytes)
"""The first 8 bytes of a public key: names a node in digests and RTT rows, where 52 characters are too many."""

KEY_BYTES = 32
ID_LENGTH = 52
SHORT_LENGTH = 10
SHORT_ID_BYTES = 8
BOOT_ID_BYTES = 16


class MalformedId(ValueError):
    """A text is no node or mesh id. Fields: `found` (what stood there), `problem` (what is wrong with it)."""

    def __init__(self, found: str, problem: str) -> None:
        self.found = found
        self.problem = problem
        super().__init__(f"id: found {found[:64]!r}: {problem}; an id is {ID_LENGTH} characters of a-z and 2-7")


def node_id_of(public_key: bytes) -> NodeId:
    """The node id of a raw Ed25519 public key of 32 bytes. Raises `MalformedId` for another length."""
    return NodeId(_text_of(public_key))


def mesh_id_of(public_key: bytes) -> MeshId:
    """The mesh id of a raw Ed25519 root public key of 32 bytes. Raises `MalformedId` for another length."""
    return MeshId(_text_of(public_key))


def public_key_of(identity: NodeId | MeshId) -> bytes:
    """The 32 raw public-key bytes behind an id. Raises `MalformedId` where the text is none."""
    if len(identity) != ID_LENGTH:
        raise MalformedId(identity, f"{len(identity)} characters")
    try:
        raw = base64.b32decode(identity.upper() + "====")
    except binascii.Error as error:
        raise MalformedId(identity, "not base32") from error
    if _text_of(raw) != identity:
        raise MalformedId(identity, "not the canonical lowercase form")
    return raw


def parse_node_id(text: str) -> NodeId:
    """`text` as a node id, or `MalformedId`."""
    public_key_of(NodeId(text))
    return NodeId(text)


def parse_mesh_id(text: str) -> MeshId:
    """`text` as a mesh id, or `MalformedId`."""
    public_key_of(MeshId(text))
    return MeshId(text)


def short(identity: NodeId | MeshId) -> str:
    """The first 10 characters: what people see."""
    return identity[:SHORT_LENGTH]


@lru_cache(maxsize=16_384)
def short_id_of(node: NodeId) -> ShortId:
    """The first 8 bytes of the node's public key, without validating the rest (13 characters hold them)."""
    return ShortId(base64.b32decode(node[:16].upper())[:SHORT_ID_BYTES])


def _text_of(public_key: bytes) -> str:
    if len(public_key) != KEY_BYTES:
        raise MalformedId(public_key.hex(), f"{len(public_key)} bytes where a key has {KEY_BYTES}")
    return base64.b32encode(public_key).decode("ascii").rstrip("=").lower()
