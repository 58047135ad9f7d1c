"""What the documentation says exists: verbs, flags, events, configuration keys, links; and its examples run."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from meshnode.cli import verbs
from meshnode.config.keys import SETTINGS
from meshnode.events import CATALOGUE
from meshnode.readiness.reasons import ReasonCode
from meshnode.reference import pages
from meshnode.tunnel import TunnelRefusal
from proto.messages import RefusalCode

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [page for page in PAGES if str(page.relative_to(ROOT)) not in pages()]
"""The pages that no code makes."""
RUN_FLAGS = {setting.flag for setting in SETTINGS.values()}


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", paths, ids=lambda path: path.name)


def commands_in(text: str) -> list[list[str]]:
    """Every `meshnode ...` of a code block or of inline code, as words."""
    blocks = re.findall(r"^(?:    |\$ ).*?(meshnode .*)$", text, re.MULTILINE)
    inline = re.findall(r"`(meshnode [^`\n]+)`", text)
    return [shlex.split(line.partition("  #")[0].replace("[", " ").replace("]", " ")) for line in [*blocks, *inline]]


def verb_of(words: list[str]) -> click.Command:
    context = click.Context(verbs)
    command: click.Command | None = verbs.get_command(context, words[1])
    assert command is not None, f"there is no verb {words[1]} ({' '.join(words)})"
    while isinstance(command, click.Group) and len(words) > 2 and command.get_command(context, words[2]):
        command, words = command.get_command(context, words[2]), words[1:]
    assert command is not None
    return command


def flags_of(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


def all_flags() -> set[str]:
    context = click.Context(verbs)
    commands = [verbs.get_command(context, name) for name in verbs.list_commands(context)]
    return {flag for command in commands if command for flag in flags_of(command)} | RUN_FLAGS | {"--help"}


@each(WRITTEN)
def test_every_command_named_exists_with_its_flags(page: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for words in commands_in(page.read_text(encoding="utf-8")):
            if words[1].isupper() or words[1].startswith("-"):
                continue
            known = flags_of(verb_of(words)) | {"--help"} | (RUN_FLAGS if words[1] == "run" else set())
            used = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            assert used <= known, f"{' '.join(words)}: no {used - known}"


@pytest.mark.parametrize("name", verbs.list_commands(click.Context(verbs)))
def test_every_verb_shows_examples(name: str) -> None:
    command = verbs.get_command(click.Context(verbs), name)
    assert command is not None
    assert re.search(rf"Examples?:\n +meshnode {name}", command.help or ""), f"meshnode {name} --help has no example"


@pytest.mark.parametrize("name", verbs.list_commands(click.Context(verbs)))
def test_every_flag_says_what_it_takes(name: str) -> None:
    context = click.Context(verbs)
    command = verbs.get_command(context, name)
    assert command is not None
    for option in command.get_params(click.Context(command, parent=context)):
        if isinstance(option, click.Option) and not option.is_flag:
            taken = option.make_metavar(context)
            assert taken not in ("VALUE", "TEXT", "INTEGER", "FLOAT"), f"meshnode {name} {option.opts[0]} {taken}"


def test_flags_of_run_name_their_bounds_and_a_page_too() -> None:
    run = verbs.get_command(click.Context(verbs), "run")
    assert run is not None
    shown = " ".join(run.get_help(click.Context(run)).split())
    page = pages()["docs/configuration.md"]
    for setting in SETTINGS.values():
        if setting.bounds:
            assert f"Default: {setting.default_text}. [{setting.bounds}]" in shown, setting.flag
            assert f"- values: {setting.bounds}\n" in page
    assert "--objective [latency|throughput|fewest|proportional]" in shown
    assert "- values: latency, throughput, fewest, proportional\n" in page


@each(WRITTEN)
def test_every_flag_named_alone_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    assert named - all_flags() == set()


@each(WRITTEN)
def test_every_event_named_exists(page: Path) -> None:
    rooms = {name.partition(".")[0] for name in CATALOGUE}
    text = page.read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([a-z]+\.[a-z_]+)`", text) if name.partition(".")[0] in rooms}
    assert named - set(CATALOGUE) == set()


@each(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        place = page if not file else (page.parent / file)
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name} links to {target}"


@each([page for page in WRITTEN if "```python" in page.read_text(encoding="utf-8")])
def test_python_examples_run(page: Path) -> None:
    for example in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(example, page.name, "exec"), {})


@each([page for page in WRITTEN if page.name in ("README.md", "troubleshooting.md")])
def test_keys_and_codes_named_exist(page: Path) -> None:
    """Words such as `allow_relayed` are keys of the config, reason codes, codes of a refusal, or values of these."""
    codes = {code.value for kind in (ReasonCode, RefusalCode, TunnelRefusal) for code in kind}
    known = {*SETTINGS, *codes}
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z]+_[a-z_]+)`", text)) - known == set()


NODES_OF_THE_README = """\
links = "free"
[[node]]
id = "2blw5fwsmu"
usable_bytes = "80GB"
[[node]]
id = "rizgpvg6xy"
usable_bytes = "74.6GB"
[[node]]
id = "ftk7flvy22"
usable_bytes = "1GB"
excluded = "client"
"""


def test_shortfall_of_the_readme_is_what_the_planner_says(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"    \$ meshnode split (\S+ .+)\n((?:    .*\n)+)", text)
    assert block is not None
    file = tmp_path / "nodes.toml"
    file.write_text(NODES_OF_THE_README)
    words = ["plan", *block[1].split(), "--nodes", str(file)]
    printed = " ".join(CliRunner().invoke(verbs, words).stdout.split())
    shown = " ".join(block[2].split())
    message, _, remedies = shown.partition(" ... ")
    of_nodes = re.compile(r"cached=unknown missing=unknown rtt=\S+ transfer=\w+")  # RTTs and files are a real mesh's
    assert of_nodes.sub("", message) in of_nodes.sub("", printed)
    assert remedies.startswith("What would help, least effort first: 1. add a node")
    for remedy in re.split(r" \d\. ", remedies)[1:]:
        assert remedy in printed
