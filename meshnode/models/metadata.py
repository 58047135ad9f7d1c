"""Typed, bounded access to a model's metadata: GGUF keys, or the keys of a config.json.

Every number that a file states passes here, so that nothing later meets a text, a float, a negative or an absurd size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshnode.models.errors import ModelFileError, shown

MAX_LAYERS = 4096
MAX_WIDTH = 1 << 24


@dataclass(frozen=True, slots=True)
class Metadata:
    """Values by key, with the file they come from (for errors). `prefix` is put before every key asked for."""

    path: str
    values: Mapping[str, object]
    prefix: str = ""

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(self.prefix + key) is not None

    def whole(
        self, key: str, default: int | None = None, *, minimum: int = 0, maximum: int = MAX_WIDTH
    ) -> int:  # fmt: skip
        """The integer at `key` within bounds. Without a default the key must be there. Raises `ModelFileError`."""
        value = self.values.get(self.prefix + key)
        if value is None and default is not None:
            return default
        return self._checked(key, value, minimum, maximum)

    def first_whole(self, keys: Sequence[str], default: int = 0, *, maximum: int = MAX_WIDTH) -> int:
        """The integer at the first of `keys` that is there: formats renamed some over time."""
        for key in keys:
            if self.has(key):
                return self.whole(key, maximum=maximum)
        return default

    def largest(self, key: str, default: int = 0) -> int:
        """The integer at `key`, or the largest of an array there."""
        value = self.values.get(self.prefix + key)
        if isinstance(value, list | tuple):
            return max((self._checked(key, item, 0, MAX_WIDTH) for item in value), default=default)
        return self.whole(key, default)

    def per_layer(self, key: str, layer_count: int, default: int = 0) -> tuple[int, ...]:
        """One integer per layer: an array of at least that many, or one value for all."""
        value = self.values.get(self.prefix + key)
        if isinstance(value, list | tuple):
            if len(value) < layer_count:
                expected = f"one entry for each of {layer_count} layers"
                raise ModelFileError(self.path, self.prefix + key, f"{len(value)} entries", expected)
            return tuple(self._checked(key, item, 0, MAX_WIDTH) for item in value[:layer_count])
        return (self.whole(key, default),) * layer_count

    def text(self, key: str, default: str | None = None) -> str:
        """The text at `key`; without a default it must be there."""
        value = self.values.get(self.prefix + key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ModelFileError(self.path, self.prefix + key, _found(value), "a printable text")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """The array of texts at `key`, or None where there is none."""
        value = self.values.get(self.prefix + key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ModelFileError(self.path, self.prefix + key, _found(value), "an array of texts")
        return tuple(value)

    def flag(self, key: str, default: bool) -> bool:
        """The boolean at `key`."""
        value = self.values.get(self.prefix + key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelFileError(self.path, self.prefix + key, _found(value), "true or false")
        return value

    def _checked(self, key: str, value: object, minimum: int, maximum: int) -> int:
        number = int(value) if isinstance(value, bool) else value
        if not isinstance(number, int) or not minimum <= number <= maximum:
            expected = f"a whole number from {minimum} to {maximum}"
            raise ModelFileError(self.path, self.prefix + key, _found(value), expected)
        return number


def _found(value: object) -> str:
    return "nothing" if value is None else shown(value)
