"""Which keys change in a running node, and how a change is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from meshnode.config import NodeConfig
from meshnode.config.as_json import config_json
from meshnode.config.keys import SETTINGS
from meshnode.config.reload import AT_ONCE, LATER, Changes, Effect, compare, effect_of


def test_every_key_named_exists_and_has_one_kind() -> None:
    assert set(SETTINGS) >= AT_ONCE | LATER
    assert AT_ONCE.isdisjoint(LATER)


def test_what_a_socket_or_the_state_depends_on_waits_for_a_restart() -> None:
    waiting = {"state_dir", "listen", "control_socket", "control_tcp", "client", "network", "max_links", "log_file"}
    assert {effect_of(key) for key in waiting} == {Effect.RESTART}


def test_changes_are_told_by_kind_with_old_and_new() -> None:
    old = NodeConfig(state_dir=Path("/old"))
    new = replace(old, max_memory=5, offer_ram=True, quorum=3, state_dir=Path("/new"), models=("a", "b"))
    assert compare(old, new) == Changes(
        at_once=("max_memory: unset -> 5", "offer_ram: false -> true", "models: [] -> [a, b]"),
        later=("quorum: 2 -> 3",),
        restart=("state_dir: /old -> /new",),
    )


def test_equal_configurations_change_nothing_and_long_values_are_cut() -> None:
    config = NodeConfig()
    assert compare(config, config) == Changes((), (), ())
    (text,) = compare(config, replace(config, models=("x" * 500,))).at_once
    assert len(text) < 160


def test_the_key_of_the_interface_is_told_nowhere() -> None:
    old = replace(NodeConfig(), api_key="the-old-key")
    assert compare(old, replace(old, api_key="the-new-key")).restart == ("api_key: [redacted] -> [redacted]",)
    assert compare(NodeConfig(), old).restart == ("api_key: unset -> [redacted]",)
    assert config_json(old)["api_key"] == "[redacted]"
    assert config_json(NodeConfig())["api_key"] is None
