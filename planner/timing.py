"""What one token costs in time: reading weights and cache on a device, passing activations between nodes.

Lives here: integer-nanosecond costs, made into an instance's `Timing`. Not here: memory (`planner.memory`), search.

Decoding is bound by memory traffic: a layer takes (weight bytes read + cache bytes read) / memory bandwidth, or its
arithmetic (2 x active parameters x lanes / FLOP/s) where both are known and that is longer (the roofline). With several
lanes in one pass the weights are read once (a mixture of experts reads up to lanes x its active bytes) and the cache of
each lane is read. A hop is half the RTT plus payload / bandwidth. In a star (llama.cpp's RPC servers copy nothing to
each other: `cpy_tensor` in ggml-rpc.cpp) a stage away from the coordinator receives activations and the attention
masks, and returns activations, all as f32; the last one returns the logits. The compute graph, sent again when it
changes, is not charged: it seldom changes while decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, TypeVar

from planner.engine import EngineProfile, Topology
from planner.instance import MaybeNs, Timing
from planner.links import Link, LinkMatrix
from planner.memory import mask_cells
from planner.model import LayerSpec, ModelSpec
from planner.nodes import DeviceSpec
from planner.workload import KvMode, Workload

T = TypeVar("T")

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


def _cost_prefix(passing: TokenPass, per_byte: float, compute_flops: float | None) -> tuple[int, ...]:
    memory = tuple(round(read * per_byte) for read in passing.read_prefix)
    if compute_flops is None or all(flop is None for flop in passing.flop_per_layer):
        return memory
    layers = [
        max(after - before, 0 if flop is None else round(flop * 1e9 / compute_flops))
        for before, after, flop in zip(memory, memory[1:], passing.flop_per_layer, strict=False)
    ]
    return tuple(accumulate(layers, initial=0))


@dataclass(frozen=True)
class DeviceTimes:
    """What does not depend on the coordinator: costs of the devices, and in a chain the hops between them.

    `node_ids`: the node of each device. `passing`: the pass that was timed.
    """

    passing: TokenPass
    node_ids: tuple[str, ...]
    node_of: tuple[int, ...]
    cost_prefix_ns: tuple[tuple[int, ...], ...]
    head_ns: tuple[int, ...]
    hop_ns: tuple[tuple[MaybeNs, ...], ...] | None
    transfer_ns: tuple[tuple[int, ...], ...] | None

    def only(self, kept: Sequence[int], node_of: tuple[int, ...]) -> DeviceTimes:
        """The same for the devices numbered `kept`, whose nodes are now numbered `node_of`."""
        return DeviceTimes(
            passing=self.passing,
            node_ids=tuple(self.node_ids[index] for index in kept),
            node_of=node_of,
            cost_prefix_ns=tuple(self.cost_prefix_ns[index] for index in kept),
            head_ns=tuple(self.head_ns[index] for index in kept),
            hop_ns=None if self.hop_ns is None else _square(self.hop_ns, kept),
            transfer_ns=None if self.transfer_ns is None else _square(self.transfer_ns, kept),
        )


def device_times(
    passing: TokenPass,
    engine: EngineProfile,
    links: LinkMatrix,
    placed: Sequence[tuple[str, DeviceSpec]],
    node_of: tuple[int, ...],
) -> DeviceTimes:
    """Times of these (node id, device) pairs, whose memory bandwidth must be known."""
    node_ids = tuple(node for node, _ in placed)
    prefixes, heads = [], []
    for _, device in placed:
        assert device.memory_bandwidth_bytes_per_s is not None, "only devices of known bandwidth are timed"
        per_byte = 1e9 / device.memory_bandwidth_bytes_per_s
        prefixes.append(_cost_prefix(passing, per_byte, device.compute_flops))
        heads.append(round(passing.head_read_bytes * per_byte))
    star = engine.topology is Topology.STAR
    hops, transfers = (None, None) if star else _hop_rows(links, node_ids, passing.activation_bytes)
    return DeviceTimes(passing, node_ids, node_of, tuple(prefixes), tuple(heads), hops, transfers)


def timing_under(
    coordinator: str | None,
    devices: DeviceTimes,
    engine: EngineProfile,
    links: LinkMatrix,
) -> Timing:
    """The `Timing` with the token entering and leaving at `coordinator` (None: where the first stage is, for free)."""
    star = engine.topology is Topology.STAR
    links_in = [_link(links, coordinator, node) for node in devices.node_ids]
    links_out = [_link(links, node, coordinator) for node in devices.node_ids]
    passing = devices.passing
    overhead = engine.stage_overhead_ns if star else 0
    away = [overhead if node != coordinator else 0 for node in devices.node_ids]
    extra = [0 if link is None or link is _FREE else link.transfer_ns(passing.logits_extra_bytes) for link in links_out]
    return Timing(
        node_of=devices.node_of,
        cost_prefix_ns=devices.cost_prefix_ns,
        fixed_ns=(0 if star else engine.stage_overhead_ns,) * len(devices.node_ids),
        head_ns=tuple(map(sum, zip(devices.head_ns, extra, strict=True))),
        entry_ns=tuple(
            _plus(_one_way(link, passing.enter_bytes), more) for link, more in zip(links_in, away, strict=True)
        ),
        exit_ns=tuple(_one_way(link, passing.leave_bytes) for link in links_out),
        hop_ns=devices.hop_ns,
        entry_transfer_ns=tuple(_transfer(link, passing.enter_bytes) for link in links_in),
        exit_transfer_ns=tuple(_transfer(link, passing.leave_bytes) for link in links_out),
        transfer_rows_ns=devices.transfer_ns,
    )


def _square(rows: tuple[tuple[T, ...], ...], kept: Sequence[int]) -> tuple[tuple[T, ...], ...]:
    return tuple(tuple(rows[row][column] for column in kept) for row in kept)


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
