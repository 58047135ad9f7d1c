"""What a source of tensors says it has, judged before a byte is asked for.

What lives here: `listed` for the coordinator's list, `whole_list` for another member's, `heard`. What does not: what is
done with it (`meshnode.engine.weights.fetch_process`), the bounds of single fields (`proto.weights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from meshnode.engine.weights.fill_process import EMBEDDING, OUTPUT, THRESHOLD_BYTES
from meshnode.engine.weights.talk import Talk, TalkBroken
from meshnode.models.gguf_file import DIALECT
from meshnode.models.tensors import layer_of
from proto.errors import WireError
from proto.weights import TensorSize, WeightsEnd, WeightsList, WeightsTensor

MOST_LISTED: Final = 65_536
"""Tensors of a whole package that a member may list; the largest models have a tenth of it."""
MessageT = TypeVar("MessageT", WeightsList, WeightsTensor)


class SourceEnded(Exception):
    """The source said that it can't go on, and why."""


def listed(talk: Talk, ranges: Sequence[tuple[int, int]], most_bytes: int) -> tuple[str, list[TensorSize]]:
    """The manifest and every tensor of the source's lists. Raises `WireError` for what can't be this stage's."""
    tensors: list[TensorSize] = []
    manifest = ""
    judge = _ListJudge(ranges, most_bytes)
    while True:
        part = heard(talk, WeightsList)
        if manifest not in ("", part.manifest):
            raise WireError("weights_list", "manifest", part.manifest, manifest)
        manifest = part.manifest
        for tensor in part.tensors:
            judge.take(tensor)
        tensors += part.tensors
        if not part.more:
            return manifest, tensors
        if not part.tensors:
            raise WireError("weights_list", "tensors", "none, and more to come", "at least one")


class _ListJudge:
    """Judges what a source lists for a stage with layers [start, end) of each of `ranges` that has `most_bytes`."""

    def __init__(self, ranges: Sequence[tuple[int, int]], most_bytes: int) -> None:
        self._ranges = ranges
        self._most_bytes = most_bytes
        self._total = 0
        self._names: set[str] = set()

    def take(self, tensor: TensorSize) -> None:
        """Raises `WireError` with what is wrong with one more tensor."""
        name = tensor.name
        layer = layer_of(name, DIALECT)
        is_end = layer is None and name in (OUTPUT, EMBEDDING)
        if not is_end and (layer is None or not any(start <= layer < end for start, end in self._ranges)):
            raise WireError("weights_list", "tensors.name", repr(name), f"one of layers {_shown(self._ranges)}")
        # Two names that differ by case only are one file in some file systems.
        if name.casefold() in self._names:
            raise WireError("weights_list", "tensors.name", f"{name!r} twice", "each once")
        if tensor.size_bytes <= THRESHOLD_BYTES:
            raise WireError("weights_list", "tensors.size_bytes", f"{tensor.size_bytes}", f"above {THRESHOLD_BYTES}")
        self._names.add(name.casefold())
        self._total += tensor.size_bytes
        if self._total > self._most_bytes:
            expected = f"at most the {self._most_bytes} that the stage has reserved"
            raise WireError("weights_list", "tensors", f"{self._total} bytes", expected)


def _shown(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start}-{end - 1}" for start, end in ranges)


def heard(talk: Talk, kind: type[MessageT]) -> MessageT:
    message = talk.hear([kind, WeightsEnd])
    if isinstance(message, WeightsEnd):
        raise SourceEnded(message.reason)
    if not isinstance(message, kind):
        raise TalkBroken("the source ended before all was said")
    return message


def whole_list(talk: Talk, manifest: str) -> dict[str, int]:
    """Sizes by name of all that a member lists of the package `manifest`. Raises `WireError` for another package."""
    sizes: dict[str, int] = {}
    while True:
        part = heard(talk, WeightsList)
        if part.manifest != manifest:
            raise WireError("weights_list", "manifest", part.manifest, manifest)
        sizes |= {tensor.name: tensor.size_bytes for tensor in part.tensors}
        if not part.more:
            return sizes
        if not part.tensors or len(sizes) > MOST_LISTED:
            raise WireError("weights_list", "tensors", f"{len(sizes)}, and more to come", f"at most {MOST_LISTED}")
