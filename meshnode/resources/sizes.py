"""Bytes as people read them here: decimal, one digit, no space (`302.1GB`)."""

from __future__ import annotations


def gigabytes(count: int) -> str:
    """`count` bytes in GB = 10^9, one digit."""
    return f"{count / 1e9:.1f}GB"


def amount(count: int) -> str:
    """Bytes that have moved: few or many. In MB below 0.1GB."""
    return gigabytes(count) if count >= 100_000_000 else f"{count / 1e6:.1f}MB"
