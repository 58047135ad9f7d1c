"""What a model needs in memory under a workload, part by part, as the engine will allocate it.

Lives here: cache cells and KV bytes, recurrent state, endpoints, compute buffers. Not here: who can hold it
(`planner.fewest`), nor what it costs in time (`planner.timing`).

Sources. Cells and KV bytes: llama.cpp's unified KV cache, checked to the byte against a real engine (facts, sections 2
to 4). Compute buffers: a fit to what a real engine allocated (facts, section 2) that reproduces every row there to 0.02
MiB. The graph allocator's peak is the larger of two phases, and both stand on four copies of each attention mask:

    masks  = 4 x mask element bytes x micro-batch x sum of cells over the mask kinds (full, sliding); 4 B, flash 2 B
    body   = scores (heads x cells x micro-batch x 4 B, none with flash attention) + c_body x micro-batch
    head   = micro-batch x vocabulary x 4 B (logits) + c_head x micro-batch, on the last stage only
    device = masks + max(body, head)            host = masks + c_head x micro-batch

with c in 4-byte elements per token, from hidden size h, feed-forward width f and query width a: c_body = 6h + 3f (flash
6h + 4f), c_head = 5h + 2f (flash 5h + a), each plus a small constant.
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
_MASK_COPIES: Final = 4
_SLACK_ELEMENTS: Final = 26
_SLACK_ELEMENTS_FLASH: Final = 102


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
    windows = {run.window for run in model.layers if run.k_width or run.v_width}
    kinds = ({0} if 0 in windows else set()) | ({max(windows)} if any(windows) else set())
    return sum(stream_cells(window, workload) for window in kinds)


@dataclass(frozen=True)
class MemoryNeed:
    """A model's bytes under a workload and an engine profile; prefix tuples have L + 1 entries, 0 first.

    `first_bytes`, `last_bytes`, `whole_bytes`: endpoints on the first stage, on the last, on one that is both (a tied
    head is then no second copy where the embedding lies on a device). `host_bytes`: what lies in the coordinator's host
    memory. `body_compute_bytes`/`last_compute_bytes`: compute buffers of a stage that is not, or is, the last.
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
    body, last_compute, host_compute = compute_bytes(model, workload) if engine.charges_compute else (0, 0, 0)
    return MemoryNeed(
        weights_prefix=weights,
        kv_prefix=kv,
        state_prefix=state,
        total_prefix=total,
        first_bytes=first,
        last_bytes=last,
        whole_bytes=whole,
        host_bytes=host + host_compute,
        body_compute_bytes=body,
        last_compute_bytes=last_compute,
    )


def compute_bytes(model: ModelSpec, workload: Workload) -> tuple[int, int, int]:
    """Compute buffers of (a stage that is not the last, the last stage, the coordinator's host); see the module."""
    batch = workload.micro_batch
    flash = workload.flash_attention
    masks = _MASK_COPIES * (2 if flash else 4) * batch * mask_cells(model, workload)
    hidden, feed_forward = model.hidden_size, model.feed_forward_width or 4 * model.hidden_size
    attention = model.attention_width or hidden
    slack = _SLACK_ELEMENTS_FLASH if flash else _SLACK_ELEMENTS
    body_width = 6 * hidden + (4 if flash else 3) * feed_forward + slack
    head_width = 5 * hidden + (attention if flash else 2 * feed_forward) + slack
    cells = max((stream_cells(run.window, workload) for run in model.layers if run.k_width or run.v_width), default=0)
    scores = 0 if flash else 4 * model.head_count * cells * batch
    body = scores + 4 * body_width * batch
    head = 4 * (model.vocabulary + head_width) * batch
    return masks + body, masks + max(body, head), masks + 4 * head_width * batch


def _prefix(model: ModelSpec, per_run: list[int]) -> tuple[int, ...]:
    each = [figure for run, figure in zip(model.layers, per_run, strict=True) for _ in range(run.count)]
    return tuple(accumulate(each, initial=0))
