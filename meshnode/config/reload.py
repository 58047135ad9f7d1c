"""What a changed configuration can change in a running node (SIGHUP), and what waits for its next start.

What lives here: the keys of each kind, `compare` and `Changes`. What does not: reading the configuration
(`meshnode.config.sources`), and the rooms that take it (`Node.reconfigure`). Called by the daemon; the reference page
of the configuration says for each key which kind it is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from meshnode.config.keys import NodeConfig
from meshnode.redaction import BLOT, SECRET_NAMES


class Effect(StrEnum):
    """When a changed key takes effect."""

    AT_ONCE = "at once"
    LATER = "for splits and questions that begin afterwards"
    RESTART = "at the next start"


AT_ONCE: Final = frozenset({
    "advertise", "peers", "max_memory", "declare_usable", "declare_host", "headroom", "offer_ram",
    "memory_bandwidth_gb_s", "willing", "capacity_interval_s", "models", "model_dirs", "interested_in", "log_level",
})  # fmt: skip
LATER: Final = frozenset({
    "context", "lanes", "kv_type", "k_type", "v_type", "objective", "engine", "quorum", "dwell_s",
    "first_quorum_window_s", "deadline_s", "pending_s", "max_stage_rtt_ms", "min_capacity", "allow_relayed",
    "exclude", "force_split",
})  # fmt: skip
"""A split that runs is not torn down because a setting of its beginning changed."""


def effect_of(key: str) -> Effect:
    """When a change of this key takes effect."""
    if key in AT_ONCE:
        return Effect.AT_ONCE
    return Effect.LATER if key in LATER else Effect.RESTART


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two configurations, as texts `key: old -> new`, by when it takes effect."""

    at_once: tuple[str, ...]
    later: tuple[str, ...]
    restart: tuple[str, ...]


def compare(old: NodeConfig, new: NodeConfig) -> Changes:
    """What `new` changes of `old`."""
    found: dict[Effect, list[str]] = {effect: [] for effect in Effect}
    for field in fields(NodeConfig):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            shown = _hidden if field.name in SECRET_NAMES else _shown
            found[effect_of(field.name)].append(f"{field.name}: {shown(before)} -> {shown(after)}")
    return Changes(tuple(found[Effect.AT_ONCE]), tuple(found[Effect.LATER]), tuple(found[Effect.RESTART]))


def _hidden(value: object) -> str:
    return "unset" if value is None else BLOT


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."
