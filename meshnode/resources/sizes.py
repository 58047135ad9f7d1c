"""Bytes as people read them here: decimal, one digit, no space (`302.1GB`)."""

from __future__ import annotations


def gigabytes(count: int) -> str:
    """`count` bytes in GB = 10^9, one digit."""
    return f"{count / 1e9:.1f}GB"
