"""The one error of this room: a model file, directory, profile or ref that can't be what it should be."""

from __future__ import annotations

_LONGEST_FOUND = 200


class ModelFileError(ValueError):
    """`path` (or the ref as given), the `field` in it, what was `found` there and what was `expected`; one line.

    Fields are plain text so that the error crosses a process border and becomes an event unchanged.
    """

    def __init__(self, path: str, field: str, found: str, expected: str) -> None:
        self.path = path
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{path}: {field}: found {_one_line(found)}, expected {_one_line(expected)}")

    def __eq__(self, other: object) -> bool:
        """Equal errors of two readings are no news."""
        return isinstance(other, ModelFileError) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash(self._facts())

    def _facts(self) -> tuple[str, str, str, str]:
        return (self.path, self.field, self.found, self.expected)


def shown(value: object) -> str:
    """`value` as text for `found`: its repr, cut where a hostile file made it long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_FOUND else text[:_LONGEST_FOUND] + "..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
