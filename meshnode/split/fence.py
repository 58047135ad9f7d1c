"""Fences: the order of plans, and the promise that keeps two coordinators from holding one worker.

What lives here: `Fences`, the highest fence promised per model, and the shape it is stored in. What does not: what a
worker reserves under a fence (`meshnode.split.reservation`).

A fence is (generation, coordinator id), ordered as a pair. A worker promises the highest it has seen for a model,
durably and before it answers, and refuses lower ones for ever after: a coordinator in the other half of a healed
partition, or one that was asleep, can't take back what a newer plan holds. A coordinator makes the same promise to
itself before it uses a fence, so that after a restart it never uses one twice for different plans.

Models are named by members, so the number of promises is bounded: the one renewed longest ago gives way. What a worker
*holds* is also compared directly, so that a forgotten promise never costs it a running stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Meta, Struct

from proto.ids import NodeId
from proto.messages import Fence
from proto.shapes import MAX_COUNTER, WireText

MAX_FENCED_MODELS: Final = 1024
"""Models with a promise at most: as many as a mesh may have use for, and a small file."""
MAX_GENERATION_JUMP: Final = 2**32
"""A generation further ahead than this is no plan but an attempt to exhaust the counter (2^53) in a few steps."""


class FenceFile(Struct, frozen=True):
    """The promises as stored in the state directory (`fences.json`)."""

    promised: Annotated[dict[WireText, Fence], Meta(max_length=MAX_FENCED_MODELS)] = {}


class FenceRefused(Exception):
    """A fence that must not be promised: `reason` for people, `highest` what is promised already (None: nothing)."""

    def __init__(self, reason: str, highest: Fence | None) -> None:
        self.reason = reason
        self.highest = highest
        super().__init__(reason)


class Fences:
    """The highest fence promised per model. Pure: the caller stores `as_file()` before it acts on a new promise."""

    def __init__(self, stored: FenceFile | None = None) -> None:
        self._promised: dict[str, Fence] = dict(stored.promised) if stored is not None else {}

    def highest(self, model: str) -> Fence | None:
        """The promise for `model`."""
        return self._promised.get(model)

    def promise(self, model: str, fence: Fence) -> bool:
        """Promises `fence`. True where that is a new promise, which must be stored; False where it was promised before.

        Raises `FenceRefused` for a lower fence or an impossible jump.
        """
        self.check(model, fence)
        if self._promised.get(model) == fence:
            return False
        self._promised.pop(model, None)
        while len(self._promised) >= MAX_FENCED_MODELS:
            self._promised.pop(next(iter(self._promised)))
        self._promised[model] = fence
        return True

    def check(self, model: str, fence: Fence) -> None:
        """Raises `FenceRefused` where `promise` would."""
        highest = self._promised.get(model)
        reached = 0 if highest is None else highest.generation
        if highest is not None and fence < highest:
            raise FenceRefused(f"fenced: generation {reached} of {highest.coordinator} is promised", highest)
        if fence.generation > min(reached + MAX_GENERATION_JUMP, MAX_COUNTER):
            raise FenceRefused(f"fenced: generation {fence.generation} is too far above {reached}", highest)

    def above(self, model: str, coordinator: NodeId, seen: int = 0) -> Fence:
        """The lowest fence of `coordinator` above the promise and above generation `seen` (in refusals or offers). An
        impossible `seen` is a lie and counts for nothing."""
        highest = self._promised.get(model)
        reached = 0 if highest is None else highest.generation
        believed = seen if seen < min(reached + MAX_GENERATION_JUMP, MAX_COUNTER) else 0
        return Fence(max(believed, reached) + 1, coordinator)

    def as_file(self) -> FenceFile:
        """What is to be stored."""
        return FenceFile(dict(self._promised))

    def promised(self) -> Mapping[str, Fence]:
        """All promises, by model."""
        return dict(self._promised)
