"""Bytes of tensors from another member, in the child that fetches: the coordinator says which they must be.

What lives here: `Member`. What does not: which member (`meshnode.engine.weights.holders`), verifying, which is the same
for all sources (`meshnode.engine.weights.fetch_process`).

A member is believed to have the bytes of which the coordinator told the digest, and left at the first sign that it has
not. What is missing then comes from the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable

from meshnode.engine.weights.listing import SourceEnded, heard, whole_list
from meshnode.engine.weights.talk import Talk, TalkBroken
from proto.errors import WireError
from proto.weights import TensorSize, WeightsRequest, WeightsTensor


class Member:
    """Over `talk`, for the package `manifest`. `left` is told why it is of no use any more, and whether it was
    wrong."""

    def __init__(self, talk: Talk, manifest: str, left: Callable[[str, bool], None]) -> None:
        self.talk = talk
        self.is_of_use = True
        self._manifest = manifest
        self._left = left
        self._sizes: dict[str, int] | None = None

    def begin(self, tensor: TensorSize, digest: bytes, offset: int) -> bool:
        """Whether the tensor's bytes from `offset` on follow now."""
        try:
            if self._sizes is None:
                self._sizes = whole_list(self.talk, self._manifest)
            if self._sizes.get(tensor.name) != tensor.size_bytes:
                raise WireError("weights_list", "tensors", f"no {tensor.name!r} of that size", "the same package")
            self.talk.say(WeightsRequest(tensor.name, offset, digest))
            answer = heard(self.talk, WeightsTensor)
            if answer != WeightsTensor(tensor.name, tensor.size_bytes, digest, offset):
                raise WireError("weights_tensor", "digest", answer.digest.hex()[:16], digest.hex()[:16])
        except (TalkBroken, SourceEnded, WireError) as error:
            self.leave(str(error), is_wrong=isinstance(error, WireError))
        return self.is_of_use

    def leave(self, reason: str, *, is_wrong: bool) -> None:
        """Ask it nothing more."""
        if self.is_of_use:
            self.is_of_use = False
            self._left(reason, is_wrong)
