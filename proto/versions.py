"""Which protocol versions this build speaks, and how two builds agree on one.

The ALPN never changes; all versioning is in the hello. Called by the handshake only.
"""

from __future__ import annotations

from typing import NamedTuple

ALPN = "meshnode/1"

STAGE_PROTOCOL_GENERATION = 1
"""Generation of the stage (engine) protocol; nodes of different generations cannot share a split."""


class ProtocolVersion(NamedTuple):
    """One protocol version: a new major breaks older peers, a new minor does not."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class VersionRange(NamedTuple):
    """The inclusive range of versions a peer speaks."""

    lowest: ProtocolVersion
    highest: ProtocolVersion

    def __str__(self) -> str:
        return f"{self.lowest} to {self.highest}"


OURS = VersionRange(ProtocolVersion(1, 0), ProtocolVersion(1, 0))


def highest_common(ours: VersionRange, theirs: VersionRange) -> ProtocolVersion | None:
    """The highest version in both ranges, or None where the ranges do not meet."""
    candidate = min(ours.highest, theirs.highest)
    return candidate if candidate >= max(ours.lowest, theirs.lowest) else None


def who_must_upgrade(ours: VersionRange, theirs: VersionRange) -> str:
    """`us` or `them`: the side whose highest version is below the other's lowest."""
    return "us" if ours.highest < theirs.lowest else "them"
