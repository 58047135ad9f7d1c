"""What the two ends of a tunnel for weights say to each other.

What lives here: the shapes and `WEIGHTS_MESSAGES` with each type's size limit. What does not: bytes (`proto.codec`),
tunnels (`proto.tunnels`), what follows from them (`meshnode.engine`).

    worker                                  source, which has the model's files
      | <- weights_list ...                    what the worker's stage is made of, in as many messages as it takes
      | -- weights_request: name, offset -->   one for each tensor, the next ones before the first is answered
      | <- weights_tensor, then its bytes ---  in the order of the requests
      | <- weights_end -----------------------  in place of a tensor: no more follows, and why

Each message is a frame as on the control stream; a tensor's bytes follow its frame as they are. In a tunnel only these
types may come. A source that sends what it did not announce, or more of it, is refused.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from proto.messages import Message
from proto.shapes import WireBytesFigure, WireText

MAX_TENSOR_NAME = 64
"""llama.cpp's own bound (ggml.h, GGML_MAX_NAME)."""
MAX_LISTED = 512

WireTensorName = Annotated[str, Meta(min_length=1, max_length=MAX_TENSOR_NAME, pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
"""It becomes a part of a file's name on the worker: no slash, no leading dot."""
WireDigest = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""SHA-256 over a tensor's bytes."""
WireManifest = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[a-z0-9]+:[0-9a-f]+$")]


class TensorSize(Struct, frozen=True, array_like=True):
    """One tensor as listed."""

    name: WireTensorName
    size_bytes: WireBytesFigure


class WeightsList(Message, frozen=True, tag="weights_list"):
    """The large tensors of the asking worker's stage: those that the engine looks up by hash before it sends them.
    `manifest` is the package's identity, the same in each; `more` says that another list follows."""

    manifest: WireManifest
    tensors: Annotated[tuple[TensorSize, ...], Meta(max_length=MAX_LISTED)]
    more: bool


class WeightsRequest(Message, frozen=True, tag="weights_request"):
    """The worker asks for a listed tensor from `offset` on, where what it has so far is of a tensor with `digest`; at
    the tensor's end it asks only whether what it has is still right. None where it has nothing. `told_only`: the answer
    is wanted and no bytes, which come from another member."""

    name: WireTensorName
    offset: WireBytesFigure
    digest: WireDigest | None
    told_only: bool = False


class WeightsTensor(Message, frozen=True, tag="weights_tensor"):
    """The answer. Its bytes from `offset` to `size_bytes` follow: the offset that was asked for, or 0 where the digest
    is another one than the request's."""

    name: WireTensorName
    size_bytes: WireBytesFigure
    digest: WireDigest
    offset: WireBytesFigure


class WeightsEnd(Message, frozen=True, tag="weights_end"):
    """The source can't go on; `reason` is a sentence for people."""

    reason: WireText


_KIB = 1024
WEIGHTS_MESSAGES: dict[type[Message], int] = {
    WeightsList: 48 * _KIB,
    WeightsRequest: 1 * _KIB,
    WeightsTensor: 1 * _KIB,
    WeightsEnd: 3 * _KIB,
}
"""Each message's largest encoded size in bytes."""
