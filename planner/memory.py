"""What a model needs in memory under a workload, part by part, as the engine will allocate it.

Lives here: cache cells and KV bytes, recurrent state, endpoints, compute buffers. Not here: who can hold it
(`planner.fewest`), nor what it costs in time (`planner.timing`).

Sources. Cells and KV bytes: llama.cpp's unified KV cache, checked to the byte against llama-cpp-python 0.3.36. Compute
buffers: what that reserved for Gemma 3 270M and for made models of the llama, qwen3 and gemma3 kinds, each width varied
for itself, on one, two and three devices (`sched_reserve` in its log); they agree with all of those to 1 % but for what
is said below. In 4-byte elements per token of the micro-batch, with hidden size h, feed-forward width f, query width a
(heads x key length) and vocabulary v:

    masks = copies x mask element bytes x sum of cells over the mask kinds (full, sliding) / 4; 4 B, flash 2 B
    flash:     first 6h + 3f + a     later 10h + 3f + a     head v + 9h         host 5h
               on one device: body 3h + 3f + a, head v + 2h
    otherwise: first s + 6h + 3f     later s + 10h + 3f     head v + 5h + 2f    host 5h + 2f     s = heads x cells

The scheduler keeps four copies of what comes in from another device as soon as there are two of them (ggml-backend.cpp,
`GGML_SCHED_MAX_COPIES`), and one where the model lies on one. A stage takes masks + body, the last one masks +
max(body, head); on one device masks and body make room for the head: max(masks + body, head). With copies, activations
come in twice (4h) at all stages but the first, whose input the host has made, and there too where the coordinator's CPU
has a later stage; the planner charges all alike, so that a first stage often takes 4h less than is charged. Quantised
caches rotate keys and values by Hadamard matrices, one each for every mask kind (llama-kv-cache.cpp,
`build_input_k_rot`): copies x (k^2 + 64^2) elements in all, k the largest power of two in the key length.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from planner.engine import EngineProfile
from planner.errors import MAX_BYTES, InvalidPlanInput
from planner.model import LayerSpec, ModelSpec
from planner.workload import KvMode, Workload

CELL_PADDING: Final = 256
_COPIES: Final = 4
_SLACK_ELEMENTS: Final = 48
"""Positions and cache indices, in copies."""
_ROTATED: Final = 64


def padded_cells(tokens: int) -> int:
    """Cells that llama.cpp allocates for `tokens`: the next multiple of 256."""
    return -(-tokens // CELL_PADDING) * CELL_PADDING


def stream_cells(window: int, workload: Workload) -> int:
    """Cells of one cache stream (a lane in `split`, the shared pool in `unified`) of a layer with this window (0:
    full).

    A windowed layer keeps its window (of every sequence in the pool) and the micro-batch being written.
    """
    context = workload.context or 0
    if window == 0 or workload.swa_full:
        return padded_cells(context)
    sequences = workload.lanes if workload.kv_mode is KvMode.UNIFIED else 1
    return padded_cells(min(context, window * sequences + workload.micro_batch))


def layer_kv_bytes(layer: LayerSpec, workload: Workload) -> int:
    """KV cache bytes of one layer for all lanes."""
    streams = 1 if workload.kv_mode is KvMode.UNIFIED else workload.lanes
    row = workload.k_type.row_bytes(layer.k_width) + workload.v_type.row_bytes(layer.v_width)
    return stream_cells(layer.window, workload) * streams * row


def mask_cells(model: ModelSpec, workload: Workload) -> int:
    """Sum of cells over the kinds of attention mask the model needs: full and, where a layer has a window, sliding."""
    return sum(stream_cells(window, workload) for window in _mask_windows(model))


def _mask_windows(model: ModelSpec) -> set[int]:
    windows = {run.window for run in model.layers if run.k_width or run.v_width}
    return ({0} if 0 in windows else set()) | ({max(windows)} if any(windows) else set())


@dataclass(frozen=True)
class MemoryNeed:
    """A model's bytes under a workload and an engine profile; prefix tuples have L + 1 entries, 0 first.

    `first_bytes`, `last_bytes`, `whole_bytes`: endpoints on the first stage, on the last, on one that is both (a tied
    head is then no second copy where the embedding lies on a device). `host_bytes`: what lies in the coordinator's host
    memory. `body_compute_bytes`/`last_compute_bytes`/`whole_compute_bytes`: compute buffers of a stage that is not the
    last, is the last of several, holds everything.
    """

    weights_prefix: tuple[int, ...]
    kv_prefix: tuple[int, ...]
    state_prefix: tuple[int, ...]
    total_prefix: tuple[int, ...]
    first_bytes: int
    last_bytes: int
    whole_bytes: int
    host_bytes: int
    body_compute_bytes: int
    last_compute_bytes: int
    whole_compute_bytes: int

    @property
    def layers_bytes(self) -> int:
        """Weights, KV and state of all layers."""
        return self.total_prefix[-1]

    @property
    def split_bytes(self) -> int:
        """What must lie on devices when no single one holds the model: a tied head is then a second copy."""
        return self.layers_bytes + self.first_bytes + self.last_bytes

    @property
    def solo_bytes(self) -> int:
        """What must lie on one device that holds all of it (no compute)."""
        return self.layers_bytes + self.whole_bytes


def memory_need(model: ModelSpec, workload: Workload, engine: EngineProfile) -> MemoryNeed:
    """The model's bytes at `workload` (whose context must be given) under `engine`.

    Raises `InvalidPlanInput` if they exceed `MAX_BYTES`: a context or lane count that cannot be meant.
    """
    weights = _prefix(model, [run.weight_bytes for run in model.layers])
    kv = _prefix(model, [layer_kv_bytes(run, workload) for run in model.layers])
    state = _prefix(model, [run.state_bytes * workload.lanes for run in model.layers])
    total = tuple(map(sum, zip(weights, kv, state, strict=True)))
    if total[-1] > MAX_BYTES:
        raise InvalidPlanInput(
            "context", workload.context, f"a context at which the model takes at most {MAX_BYTES} bytes"
        )
    if engine.embedding_on_host:
        first, last, whole, host = 0, model.head_bytes, model.head_bytes, model.embedding_bytes
    else:
        first, last, host = model.embedding_bytes, model.head_bytes, 0
        whole = model.embedding_bytes + model.output_bytes
    compute = compute_need(model, workload) if engine.charges_compute else ComputeNeed(0, 0, 0, 0, 0)
    return MemoryNeed(
        weights_prefix=weights,
        kv_prefix=kv,
        state_prefix=state,
        total_prefix=total,
        first_bytes=first,
        last_bytes=last,
        whole_bytes=whole,
        host_bytes=host + compute.host,
        body_compute_bytes=compute.body,
        last_compute_bytes=compute.last,
        whole_compute_bytes=compute.whole,
    )


@dataclass(frozen=True)
class ComputeNeed:
    """Compute buffers in bytes of a stage that is not the last (`body`), of the last of several (`last`), of one that
    holds the whole model (`whole`), and of the coordinator's host (`host`). `arriving`: what a stage adds to the host's
    part where both are the coordinator's CPU, which then hold one buffer; nothing for the first one."""

    body: int
    last: int
    whole: int
    host: int
    arriving: int


def compute_need(model: ModelSpec, workload: Workload) -> ComputeNeed:
    """See the module."""
    batch, hidden = workload.micro_batch, model.hidden_size
    feed_forward = model.feed_forward_width or 4 * hidden
    attention = model.attention_width or hidden
    arriving = 4 * hidden
    if workload.flash_attention:
        body_width = 6 * hidden + 3 * feed_forward + attention
        head_width, host_width = 9 * hidden, 5 * hidden
        alone_body, alone_head = 3 * hidden + 3 * feed_forward + attention, 2 * hidden
    else:
        kept = (stream_cells(run.window, workload) for run in model.layers if run.k_width or run.v_width)
        cells = max(kept, default=0)
        body_width = model.head_count * cells + 6 * hidden + 3 * feed_forward
        head_width = host_width = alone_head = 5 * hidden + 2 * feed_forward
        alone_body = body_width
    body_width += arriving

    def bytes_of(elements: int) -> int:
        return 4 * (elements + _SLACK_ELEMENTS) * batch

    one_mask = (2 if workload.flash_attention else 4) * batch * mask_cells(model, workload)
    one_rotation = _rotation_bytes(model, workload)
    masks = _COPIES * (one_mask + one_rotation)
    head = bytes_of(model.vocabulary + head_width)
    alone = one_mask + one_rotation
    return ComputeNeed(
        body=masks + bytes_of(body_width),
        last=masks + max(bytes_of(body_width), head),
        whole=max(alone + bytes_of(alone_body), bytes_of(model.vocabulary + alone_head)),
        host=masks + bytes_of(host_width),
        arriving=4 * arriving * batch,
    )


def _rotation_bytes(model: ModelSpec, workload: Workload) -> int:
    """One copy of what rotates keys and values that are kept quantised."""
    length = (model.attention_width or model.hidden_size) // max(1, model.head_count)
    if length % _ROTATED:
        return 0
    keys = (length & -length) if workload.k_type.is_quantised else 0
    values = _ROTATED if workload.v_type.is_quantised else 0
    return 4 * len(_mask_windows(model)) * (keys**2 + values**2)


def _prefix(model: ModelSpec, per_run: list[int]) -> tuple[int, ...]:
    each = [figure for run, figure in zip(model.layers, per_run, strict=True) for _ in range(run.count)]
    return tuple(accumulate(each, initial=0))
