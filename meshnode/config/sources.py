"""Where a node's configuration comes from: flags beat environment (`MESHNODE_*`) beat the TOML file beat the defaults.

What lives here: `load_config`, its one error, and the XDG places. What does not: the keys (`meshnode.config.keys`), and
how a single value is read (`meshnode.config.values`). Called by `meshnode run` and, for the state directory and the
control socket, by every other verb.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from meshnode.config.keys import ENVIRONMENT_PREFIX, SETTINGS, NodeConfig, Setting
from meshnode.config.values import WrongValue

OTHER_VARIABLES: Final = frozenset({"MESHNODE_CONFIG", "MESHNODE_JOIN"})
"""Variables of the command line that are no configuration keys."""
_INJECTED: Final = re.compile(r"MESHNODE_(PORT|SERVICE_(HOST|PORT))(_|$)")
"""What Kubernetes sets for a service called meshnode: `MESHNODE_SERVICE_HOST`, `MESHNODE_PORT_4411_UDP_ADDR`."""


class ConfigError(ValueError):
    """A configuration that can't be meant: `key`, what was `found` and `expected`, and the `source` that said it."""

    def __init__(self, key: str, found: object, expected: str, source: str) -> None:
        self.key = key
        self.found = found
        self.expected = expected
        self.source = source
        shown = "" if found is None else f" found {_shown(found)},"
        super().__init__(f"{key}:{shown} expected {expected} ({source})")


def default_state_dir(environment: Mapping[str, str] | None = None) -> Path:
    """`$XDG_STATE_HOME/meshnode`, or `~/.local/state/meshnode` (XDG Base Directory Specification 0.8). Raises
    `ConfigError` where there is neither."""
    variables = os.environ if environment is None else environment
    base = variables.get("XDG_STATE_HOME", "")
    # The specification: a relative path in the variable is invalid and must be ignored.
    if base.startswith("/"):
        return Path(base) / "meshnode"
    home = _home()
    if home is None:
        raise ConfigError("state_dir", None, "a directory, since this user has no home that could hold one", "default")
    return home / ".local" / "state" / "meshnode"


def default_config_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """`$XDG_CONFIG_HOME/meshnode/node.toml`, or `~/.config/meshnode/node.toml`; None for a user without a home."""
    variables = os.environ if environment is None else environment
    base = variables.get("XDG_CONFIG_HOME", "")
    if base.startswith("/"):
        return Path(base) / "meshnode" / "node.toml"
    home = _home()
    return None if home is None else home / ".config" / "meshnode" / "node.toml"


def _home() -> Path | None:
    """None for a service's user that has neither `HOME` nor a place in the user database."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def load_config(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> NodeConfig:
    """The configuration out of its three sources and the defaults.

    `flags` maps keys (not flag names) to values as the command line gave them, None where a flag was not given. `file`
    is an explicit config file; without one `MESHNODE_CONFIG` is read, then the XDG default where it exists. Raises
    `ConfigError` for the first thing that can't be meant.
    """
    variables = os.environ if environment is None else environment
    given: dict[str, object] = {}
    given.update(_from_file(file, variables))
    given.update(_from_environment(variables))
    given.update(_from_flags(flags or {}))
    if "state_dir" not in given:
        given["state_dir"] = default_state_dir(variables)
    config = NodeConfig(**given)  # type: ignore[arg-type]  # each value was parsed by its own field's parser
    _check_together(config)
    return config


def _check_together(config: NodeConfig) -> None:
    if config.max_memory is not None and config.declare_usable is not None:
        raise ConfigError(
            "max_memory", f"{config.max_memory} bytes",
            "only one of max_memory and declare_usable: from a declared figure nothing is subtracted", "both are set",
        )  # fmt: skip


def _from_flags(flags: Mapping[str, object]) -> dict[str, object]:
    given = {key: value for key, value in flags.items() if value is not None}
    return {key: _parsed(SETTINGS[key], value, f"flag {SETTINGS[key].flag}") for key, value in given.items()}


def _from_environment(variables: Mapping[str, str]) -> dict[str, object]:
    by_variable = {setting.variable: setting for setting in SETTINGS.values()}
    given: dict[str, object] = {}
    for variable, value in sorted(variables.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES or _INJECTED.match(variable):
            continue
        if (setting := by_variable.get(variable)) is not None:
            given[setting.key] = _parsed(setting, value, f"environment {variable}")
        elif near := _near(variable, [*by_variable, *OTHER_VARIABLES], cutoff=0.85):
            # Only a near miss is an error: orchestrators inject variables of their own under a service's name
            # (Kubernetes: MESHNODE_SERVICE_HOST, MESHNODE_PORT_4411_UDP_ADDR).
            raise ConfigError(variable, value, f"a known variable; did you mean {near}?", "environment")
    return given


def _from_file(explicit: Path | None, variables: Mapping[str, str]) -> dict[str, object]:
    named = explicit or (Path(variables["MESHNODE_CONFIG"]) if variables.get("MESHNODE_CONFIG") else None)
    file = named or default_config_file(variables)
    if file is None:
        return {}
    try:
        file = file.expanduser()
        if named is None and not file.exists():
            return {}
        content = file.read_text(encoding="utf-8")
        table = tomllib.loads(content)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows the home directory that ~ means
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError("config file", str(file), "a readable file", reason or str(error)) from error
    except ValueError as error:
        # UnicodeDecodeError and TOMLDecodeError; the latter says line and column.
        raise ConfigError("config file", str(file), "valid TOML in UTF-8", str(error)) from error
    return {key: _from_line(key, value, file, content) for key, value in table.items()}


def _from_line(key: str, value: object, file: Path, content: str) -> object:
    source = f"file {file}, line {_line_of(key, content)}"
    setting = SETTINGS.get(key)
    if setting is None:
        if isinstance(value, dict):
            raise ConfigError(key, None, "no table: all keys stand side by side, without headings", source)
        raise ConfigError(key, None, f"a known key; {nearest_key(key)}", source)
    return _parsed(setting, value, source)


def nearest_key(key: str) -> str:
    """Advice for an unknown key: the nearest right one, or where all of them stand."""
    plain = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower().replace("-", "_")
    near = _near(plain, SETTINGS, cutoff=0.6)
    return f"did you mean {near}?" if near else "docs/configuration.md lists all of them"


def _near(word: str, known: Iterable[str], cutoff: float) -> str | None:
    """The one of `known` that is most like `word`, and like enough."""
    # A quarter of a megabyte, which a node with a sound configuration need not hold.
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def _line_of(key: str, content: str) -> int:
    pattern = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[.=\]]")
    return next((number for number, line in enumerate(content.splitlines(), 1) if pattern.match(line)), 1)


def _parsed(setting: Setting, value: object, source: str) -> object:
    try:
        return setting.about.parse(value)
    except WrongValue as error:
        raise ConfigError(setting.key, value, error.expected, source) from error


def _shown(found: object) -> str:
    # A repeatable flag comes as a tuple, also where it was given once; people wrote no parentheses.
    shown = ", ".join(map(repr, found)) if isinstance(found, tuple) else repr(found)
    return shown if len(shown) <= 80 else shown[:77] + "..."
