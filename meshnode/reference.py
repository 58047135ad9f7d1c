"""The reference pages and the example config, made from the code so that they can't be wrong.

What lives here: `config_page`, `example_config`, `events_page`, and `python -m meshnode.reference ROOT`, which writes
them all. Tests hold the files in `docs/` and `configs/` to it; the daemon never imports it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from itertools import groupby
from pathlib import Path

from meshnode.config.keys import SETTINGS, Setting
from meshnode.config.reload import effect_of
from meshnode.events import CATALOGUE, Event

_EXAMPLE_HEAD = """\
# A node's configuration, every key with its default. Copy it to ~/.config/meshnode/node.toml, or name it with
# `meshnode run --config FILE`, and uncomment what you want to change.
#
# A flag beats the environment, the environment beats this file. Each key has the same name in all three:
# max_memory here is MESHNODE_MAX_MEMORY in the environment and --max-memory as a flag.
#
# Sizes: GB is 10^9 bytes, GiB is 2^30. Times end in _s (seconds) or _ms (milliseconds).
"""


def pages() -> dict[str, str]:
    """Every made file: its path from the project's root, and its text."""
    from meshnode.control.metrics import metrics_page
    from meshnode.protocol_page import protocol_page
    from meshnode.readiness import reasons_page

    return {
        "docs/configuration.md": config_page(),
        "docs/events.md": events_page(),
        "docs/metrics.md": metrics_page(),
        "docs/protocol.md": protocol_page(),
        "docs/reasons.md": reasons_page(),
        "configs/node.example.toml": example_config(),
    }


def example_config() -> str:
    """The text of `configs/node.example.toml`: all keys, all commented out, each with meaning, default and example."""
    pieces = [_EXAMPLE_HEAD]
    for group, settings in _by_group():
        pieces.append(f"\n# --- {group} ".ljust(110, "-") + "\n")
        pieces.extend(_example_entry(setting) for setting in settings)
    return "".join(pieces)


def _example_entry(setting: Setting) -> str:
    meaning = textwrap.fill(setting.about.meaning, 110, initial_indent="# ", subsequent_indent="# ")
    values = f"# Values: {setting.values_text}\n" if setting.values_text else ""
    return f"\n{meaning}\n# Default: {setting.default_text}\n{values}# {setting.key} = {setting.about.example}\n"


def config_page() -> str:
    """The reference of every configuration key, as Markdown."""
    lines = [
        "# Configuration",
        "",
        "Made from the code (`meshnode/config/keys.py`); `make docs` makes it anew.",
        "",
        "A flag of `meshnode run` beats the environment, the environment beats the TOML file, the file beats the",
        "default. The file is the one named by `--config` or `MESHNODE_CONFIG`, else",
        "`$XDG_CONFIG_HOME/meshnode/node.toml` (`~/.config/meshnode/node.toml`) where it exists.",
        "`configs/node.example.toml` holds every key, commented.",
        "",
        "Sizes are whole bytes or texts such as `24GB` (10^9) and `24GiB` (2^30). In the environment a list is",
        "separated by commas; as a flag it is repeated. An unknown key is an error that names the nearest right one.",
    ]
    for group, settings in _by_group():
        lines += ["", f"## {group}"]
        for setting in settings:
            lines += _config_entry(setting)
    return "\n".join(lines) + "\n"


def _config_entry(setting: Setting) -> Iterator[str]:
    repeated = " (may be repeated)" if setting.repeatable else ""
    yield from ("", f"### `{setting.key}`", "", setting.about.meaning, "")
    yield f"- default: {_code(setting.default_text)}"
    if setting.values_text:
        yield f"- values: {setting.values_text}"
    yield f"- file: `{setting.key} = {setting.about.example}`"
    yield f"- environment: `{setting.variable}`"
    yield f"- flag: `{setting.flag}`{repeated}"
    yield f"- a change takes effect (SIGHUP): {effect_of(setting.key).value}"


def _code(default_text: str) -> str:
    """Values look like code, phrases (`the host name`) don't."""
    return default_text if " " in default_text and not default_text.startswith('"') else f"`{default_text}`"


def _by_group() -> Iterator[tuple[str, list[Setting]]]:
    for group, settings in groupby(SETTINGS.values(), key=lambda setting: setting.about.group):
        yield group, list(settings)


def events_page() -> str:
    """The reference of every event, as Markdown: name, level, meaning, fields with their types."""
    lines = [
        "# Events",
        "",
        "Made from the code (`meshnode/events/`); `make docs` makes it anew.",
        "",
        "Every line of the log and every entry of `meshnode events` is one of these. In JSON a line holds `timestamp`",
        "(UTC), `level`, `event` (the name below) and the fields. Names and fields are stable: scripts may rely on",
        "them. Repeats of an event about one subject are folded into `log.folded`. No field ever holds a token or key.",
        "",
        "Words that recur: `peer`, `node`, `coordinator` and the like are node ids, of which people see ten",
        "characters. `incarnation` is a number that a node raises at each start, and to refute a suspicion: what it",
        "said with a lower one is old. `generation` numbers the plans of splits: a worker obeys the highest.",
        "`layer_end` is the first layer that is not in the range; a stage `attic/cpu:[0,18)` holds layers 0 to 17.",
        "`found` and `required` (or `expected`) are two facts that do not go together.",
        "",
        "| event | level | meaning |",
        "|---|---|---|",
    ]
    for name, event in CATALOGUE.items():
        lines.append(f"| [`{name}`](#{_anchor(name)}) | {event.level} | {_sentence(event)} |")
    for name, event in CATALOGUE.items():
        lines += ["", f"## {name}", "", f"{_sentence(event)} Level: {event.level}.", ""]
        lines += [f"- `{entry.name}`: {entry.type}" for entry in fields(event)]
    return "\n".join(lines) + "\n"


def _sentence(event: type[Event]) -> str:
    return " ".join((event.__doc__ or "").split())


def _anchor(name: str) -> str:
    """GitHub's anchor of a heading: dots go, the rest stays."""
    return re.sub(r"[^a-z0-9_-]", "", name)


def main() -> None:
    """Write every page below the project's root, which is the first argument (default: here)."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for name, text in pages().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
