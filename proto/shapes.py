"""Bounded field types that the wire's shapes are written with.

msgspec checks them in C while it converts decoded msgpack into structs, so a shape *is* its validation: wrong types,
oversize texts and out-of-range numbers never become an object. Called by `proto.parts`, `proto.messages` and the
credential shapes.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from proto.ids import ID_LENGTH

_ID_PATTERN = "^[a-z2-7]{51}[aq]$"
"""52 characters of base32 hold 260 bits, a key 256: the four spare bits of the last are zero in the one valid form."""

MAX_BYTES_FIGURE = 10**17
"""No figure in bytes may be larger (100 PB): a claim of 10^18 bytes is a lie or a bug, never a machine."""
MAX_COUNTER = 2**53 - 1
"""Largest counter (incarnation, version): what every JSON reader can hold exactly."""

WireNodeId = Annotated[str, Meta(min_length=ID_LENGTH, max_length=ID_LENGTH, pattern=_ID_PATTERN)]
WireMeshId = Annotated[str, Meta(min_length=ID_LENGTH, max_length=ID_LENGTH, pattern=_ID_PATTERN)]
WireShortId = Annotated[bytes, Meta(min_length=8, max_length=8)]
WireBootId = Annotated[bytes, Meta(min_length=16, max_length=16)]
WireNonce = Annotated[bytes, Meta(min_length=32, max_length=32)]
WireKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""A raw Ed25519 public key: a node or mesh id where every byte counts (credentials, tokens)."""
WireTokenId = Annotated[bytes, Meta(min_length=16, max_length=16)]
WireUnixTime = Annotated[int, Meta(ge=0, le=253_402_300_799)]
"""Whole seconds since 1970 UTC, up to the end of the year 9999."""
WireSignature = Annotated[bytes, Meta(min_length=64, max_length=64)]
WireBytesFigure = Annotated[int, Meta(ge=0, le=MAX_BYTES_FIGURE)]
WireCounter = Annotated[int, Meta(ge=0, le=MAX_COUNTER)]
WireMicroseconds = Annotated[int, Meta(ge=0, le=600_000_000)]
"""A duration on the wire: whole microseconds, at most 10 minutes."""
WireWord = Annotated[str, Meta(max_length=64)]
WireText = Annotated[str, Meta(max_length=512)]
WireAddress = Annotated[str, Meta(min_length=3, max_length=64)]
"""`1.2.3.4:4411` or `[fe80::1]:4411`: numeric, never a host name, so that a peer can't make us resolve."""
