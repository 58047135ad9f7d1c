"""Catalogue, code and documentation say the same: every event is emitted somewhere, known, and explained."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnode.events import CATALOGUE, Event
from meshnode.reference import pages

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "meshnode"
PLAIN = {
    "str",
    "int",
    "float",
    "bool",
    "str | None",
    "int | None",
    "float | None",
    "tuple[str, ...]",
    "tuple[int, ...]",
}


def calls() -> Iterator[str]:
    """The name of everything that is called anywhere in the package."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id


def test_every_event_of_the_catalogue_is_emitted_by_some_code() -> None:
    called = set(calls())
    assert [name for name, event in CATALOGUE.items() if event.__name__ not in called] == []


def test_every_event_class_is_in_the_catalogue_under_its_own_name() -> None:
    assert sorted(event.__name__ for event in Event.__subclasses__()) == sorted(e.__name__ for e in CATALOGUE.values())
    assert len(CATALOGUE) == len(Event.__subclasses__())


@pytest.mark.parametrize("event", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_event_has_a_dotted_name_a_meaning_and_plain_fields(event: type[Event]) -> None:
    area, _, what = event.name.partition(".")
    assert area.isidentifier()
    assert what.replace("_", "").isalpha()
    assert event.__doc__
    assert event.__doc__.rstrip().endswith(".")
    assert {str(field.type) for field in dataclasses.fields(event)} <= PLAIN


@pytest.mark.parametrize("name", pages())
def test_made_page_is_the_one_the_code_makes(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_events_page_explains_every_event_and_field() -> None:
    page = pages()["docs/events.md"]
    for name, event in CATALOGUE.items():
        assert f"\n## {name}\n" in page
        for field in dataclasses.fields(event):
            assert f"- `{field.name}`: {field.type}" in page
