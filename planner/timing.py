"""What one token costs in time: reading weights and cache on a device, passing activations between nodes.

Lives here: integer-nanosecond costs, made into an instance's `Timing`. Not here: memory (`planner.memory`), search.

Decoding is bound by memory traffic: a layer takes (weight bytes read + cache bytes read) / memory bandwidth, or its
arithmetic (2 x active parameters x lanes / FLOP/s) where both are known and that is longer (the roofline). With several
lanes in one pass the weights are read once (a mixture of experts reads up to lanes x its active bytes) and the cache of
each lane is read. A hop is half the RTT plus payload / bandwidth. In a star (facts, section 4) a stage away from the
coordinator receives activations and the attention masks, and returns activations, all as f32; the last one returns the
logits. The compute graph, sent again when it changes, is not charged: it seldom changes while decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from planner.engine import EngineProfile, Topology
from planner.instance import MaybeNs, Timing
from planner.links import Link, LinkMatrix
from planner.memory import mask_cells
from planner.model import LayerSpec, ModelSpec
from planner.nodes import DeviceSpec
from planner.workload import KvMode, Workload

_CHAIN_ACTIVATION_BYTES: Final = 2
_STAR_ACTIVATION_BYTES: Final = 4
_TOKEN_BYTES: Final = 4


@dataclass(frozen=True)
class TokenPass:
    """One decoding pass of `batch` lanes: what it reads and sends, independent of any node."""

    read_prefix: tuple[int, ...]
    flop_per_layer: tuple[int | None, ...]
    head_read_bytes: int
    activation_bytes: int
    enter_bytes: int
    leave_bytes: int
    logits_extra_bytes: int


def token_pass(model: ModelSpec, workload: Workload, engine: EngineProfile, batch: int) -> TokenPass:
    """What one pass of `batch` lanes reads and sends at the workload's filled context."""
    star = engine.topology is Topology.STAR
    element = _STAR_ACTIVATION_BYTES if star else _CHAIN_ACTIVATION_BYTES
    activation = model.hidden_size * element * batch
    reads = [_layer_read_bytes(run, workload, batch) for run in model.layers]
    each = [read for run, read in zip(model.layers, reads, strict=True) for _ in range(run.count)]
    masks = mask_cells(model, workload) * (2 if workload.flash_attention else 4) * batch
    logits = model.vocabulary * 4 * batch
    return TokenPass(
        read_prefix=tuple(accumulate(each, initial=0)),
        flop_per_layer=tuple(
            None if layer.active_parameters is None else 2 * layer.active_parameters * batch
            for layer in model.each_layer
        ),
        head_read_bytes=model.head_bytes,
        activation_bytes=activation,
        enter_bytes=activation + masks if star else _TOKEN_BYTES * batch,
        leave_bytes=activation if star else _TOKEN_BYTES * batch,
        logits_extra_bytes=max(0, logits - activation) if star else 0,
    )


def _layer_read_bytes(layer: LayerSpec, workload: Workload, batch: int) -> int:
    context = workload.context or 0
    filled = min(context, context if workload.filled_tokens is None else workload.filled_tokens)
    attended = filled if layer.window == 0 else min(filled, layer.window)
    rows = batch * attended
    if workload.kv_mode is KvMode.UNIFIED:
        rows = min(rows, context)
    kv = rows * (workload.k_type.row_bytes(layer.k_width) + workload.v_type.row_bytes(layer.v_width))
    weights = min(layer.weight_bytes, layer.read_bytes * batch)
    return weights + kv + 2 * layer.state_bytes * batch


def stage_timing(
    passing: TokenPass,
    devices: Sequence[DeviceSpec],
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """(cost prefix per device, head read per device), in ns. Every device's bandwidth must be known."""
    prefixes, heads = [], []
    for device in devices:
        bandwidth = device.memory_bandwidth_bytes_per_s
        assert bandwidth is not None, "only timed devices are compiled"
        per_byte = 1e9 / bandwidth
        prefixes.append(_cost_prefix(passing, per_byte, device.compute_flops))
        heads.append(round(passing.head_read_bytes * per_byte))
    return tuple(prefixes), tuple(heads)


def _cost_prefix(passing: TokenPass, per_byte: float, compute_flops: float | None) -> tuple[int, ...]:
    memory = tuple(round(read * per_byte) for read in passing.read_prefix)
    if compute_flops is None or all(flop is None for flop in passing.flop_per_layer):
        return memory
    layers = [
        max(after - before, 0 if flop is None else round(flop * 1e9 / compute_flops))
        for before, after, flop in zip(memory, memory[1:], passing.flop_per_layer, strict=False)
    ]
    return tuple(accumulate(layers, initial=0))


def compile_timing(
    passing: TokenPass,
    engine: EngineProfile,
    links: LinkMatrix,
    coordinator: str | None,
    placed: Sequence[tuple[str, DeviceSpec]],
    node_of: tuple[int, ...],
) -> Timing:
    """The `Timing` of these (node id, device) pairs. `coordinator` None: a ring whose hops are all free."""
    star = engine.topology is Topology.STAR
    ids = [node for node, _ in placed]
    prefixes, heads = stage_timing(passing, [device for _, device in placed])
    enter = [_link(links, coordinator, node) for node in ids]
    leave = [_link(links, node, coordinator) for node in ids]
    overhead = engine.stage_overhead_ns if star else 0
    away = [overhead if node != coordinator else 0 for node in ids]
    extra = [0 if link is None else link.transfer_ns(passing.logits_extra_bytes) for link in leave]
    rows = None if star else _hop_rows(links, ids, passing.activation_bytes)
    return Timing(
        node_of=node_of,
        cost_prefix_ns=prefixes,
        fixed_ns=tuple(0 if star else engine.stage_overhead_ns for _ in ids),
        head_ns=tuple(map(sum, zip(heads, extra, strict=True))),
        entry_ns=tuple(_plus(_one_way(link, passing.enter_bytes), o) for link, o in zip(enter, away, strict=True)),
        exit_ns=tuple(_one_way(link, passing.leave_bytes) for link in leave),
        hop_ns=None if rows is None else rows[0],
        entry_transfer_ns=tuple(_transfer(link, passing.enter_bytes) for link in enter),
        exit_transfer_ns=tuple(_transfer(link, passing.leave_bytes) for link in leave),
        transfer_rows_ns=None if rows is None else rows[1],
    )


_FREE: Final = Link(rtt_ms=0.0, bandwidth_bytes_per_s=1e30)


def _link(links: LinkMatrix, source: str | None, target: str | None) -> Link | None:
    if links.free or source == target or source is None or target is None:
        return _FREE
    return links.get(source, target)


def _one_way(link: Link | None, payload_bytes: int) -> MaybeNs:
    return None if link is None else 0 if link is _FREE else link.one_way_ns(payload_bytes)


def _transfer(link: Link | None, payload_bytes: int) -> int:
    return 0 if link is None or link is _FREE else link.transfer_ns(payload_bytes)


def _plus(cost: MaybeNs, more: int) -> MaybeNs:
    return None if cost is None else cost + more


def _hop_rows(
    links: LinkMatrix, ids: Sequence[str], payload_bytes: int
) -> tuple[tuple[tuple[MaybeNs, ...], ...], tuple[tuple[int, ...], ...]]:
    if links.free:
        zeros = (0,) * len(ids)
        return (zeros,) * len(ids), (zeros,) * len(ids)
    rows = [[_link(links, source, target) for target in ids] for source in ids]
    hops = tuple(tuple(_one_way(link, payload_bytes) for link in row) for row in rows)
    return hops, tuple(tuple(_transfer(link, payload_bytes) for link in row) for row in rows)
