"""Is what the engine loaded the plan? Layers must be where the plan has them; sizes are compared and told.

What lives here: the comparison, pure. What does not: reading the engine's report (`meshnode.engine.runs.report`), and
what follows from a difference (`meshnode.engine.runs.models`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshnode.engine.runs.report import BufferKind, LoadReport
from meshnode.engine.serving.process import EngineDevice
from planner.memory import compute_need
from planner.model import ModelSpec
from planner.plan import SplitPlan, StagePlan

HOST = "CPU"
"""The engine's name for host memory and for the CPU as a device."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A stage of the plan and its device in the engine's words: as layers are placed on it, and as its buffers are
    named (`meshnode.engine.runs.report`)."""

    stage: StagePlan
    device: str
    holder: str


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """Bytes of one device: found and predicted. The coordinator's host memory is a row of its own (`host_memory`), or
    part of the CPU's where a stage lies there. Where a file is `mapped`, its weights are found as what lies between the
    first and the last of them in the file: what is of other stages among it is never read."""

    node: str
    device: str
    weights: int
    predicted_weights: int
    cache: int
    predicted_cache: int
    compute: int
    predicted_compute: int
    mapped: bool


def engine_names(devices: Sequence[EngineDevice]) -> tuple[str, ...]:
    """What the engine calls each device: a local one by its name; remote ones `RPC0`, `RPC1`, ... counted over all
    servers in the order they are first named, each with as many devices as the plan uses of it."""
    counts: dict[str, int] = {}
    for device in devices:
        if device.endpoint:
            counts[device.endpoint] = max(counts.get(device.endpoint, 0), device.index + 1)
    first: dict[str, int] = {}
    total = 0
    for endpoint, count in counts.items():
        first[endpoint] = total
        total += count
    return tuple(device.name or f"RPC{first[device.endpoint] + device.index}" for device in devices)


def placed_on(plan: SplitPlan, devices: Sequence[EngineDevice]) -> tuple[Placed, ...]:
    """The plan's stages with the engine's words for `devices`, which are the plan's in stage order."""
    holders = [device.name or f"RPC{device.index}[{device.endpoint}]" for device in devices]
    return tuple(map(Placed, plan.stages, engine_names(devices), holders))


def wrong_layers(report: LoadReport, placed: Sequence[Placed]) -> str | None:
    """Both placements in one sentence where they differ; None where the engine did what the plan says, or where its
    log does not tell layers at all."""
    if not report.layers:
        return None
    found = _ranges(report.layers)
    wanted = {layer: each.device for each in placed for layer in range(each.stage.layer_start, each.stage.layer_end)}
    head = max(wanted) + 1
    wanted[head] = placed[-1].device
    if {layer: device for layer, device in report.layers.items() if layer in wanted} == wanted:
        return None
    return f"the engine placed {found}, the plan says {_ranges(wanted)}"


def memory_rows(
    report: LoadReport, placed: Sequence[Placed], plan: SplitPlan, model: ModelSpec
) -> tuple[MemoryRow, ...]:
    """Found and predicted bytes, device by device, the host's last. Predicted is what the plan charges, but for two
    things that it leaves on the safe side (`planner.memory`): what a first stage gets comes straight from the host,
    unless the coordinator's CPU has a later stage; and such a stage shares its memory with the host's part."""
    arriving = compute_need(model, plan.workload).arriving
    cpu_is_later = any(each.holder == HOST and each.stage.layer_start > 0 for each in placed)
    coordinator = plan.coordinator
    embedding_bytes = min(model.embedding_bytes, coordinator.host_bytes)
    host = MemoryRow(
        node=coordinator.node,
        device="host_memory",
        weights=report.bytes_of(HOST, BufferKind.WEIGHTS),
        predicted_weights=embedding_bytes,
        cache=report.bytes_of(HOST, BufferKind.KV, BufferKind.STATE),
        predicted_cache=0,
        compute=report.bytes_of(HOST, BufferKind.COMPUTE),
        predicted_compute=coordinator.host_bytes - embedding_bytes,
        mapped=HOST in report.mapped,
    )
    rows = []
    for holder in _holders(placed):
        stages = [each.stage for each in placed if each.holder == holder]
        row = _row(report, stages, holder)
        if holder == HOST and cpu_is_later:
            row = replace(row, predicted_compute=row.predicted_compute + arriving)
        elif len(plan.stages) > 1 and not cpu_is_later and all(stage.layer_start == 0 for stage in stages):
            row = replace(row, predicted_compute=max(0, row.predicted_compute - arriving))
        if holder == HOST:
            # A tied head in the host's own memory is the embedding itself.
            tied = model.head_bytes - model.output_bytes if plan.stages[-1] in stages else 0
            weights = row.predicted_weights + embedding_bytes - min(tied, embedding_bytes)
            row = replace(row, predicted_weights=weights)
        rows.append(row)
    return tuple(rows) if HOST in _holders(placed) else (*rows, host)


def _row(report: LoadReport, stages: Sequence[StagePlan], holder: str) -> MemoryRow:
    predicted = [stage.bytes for stage in stages]
    return MemoryRow(
        node=stages[0].node,
        device=stages[0].device,
        weights=report.bytes_of(holder, BufferKind.WEIGHTS),
        predicted_weights=sum(each.weights + each.endpoint for each in predicted),
        cache=report.bytes_of(holder, BufferKind.KV, BufferKind.STATE),
        predicted_cache=sum(each.kv + each.state for each in predicted),
        compute=report.bytes_of(holder, BufferKind.COMPUTE),
        predicted_compute=max(each.compute for each in predicted),
        mapped=holder in report.mapped,
    )


def _holders(placed: Sequence[Placed]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.holder for each in placed))


def _ranges(layers: dict[int, str]) -> str:
    """`RPC0:[0,7) RPC1:[7,19)`."""
    parts: list[str] = []
    begin, before = 0, ""
    for layer in sorted(layers):
        if layers[layer] != before:
            if before:
                parts.append(f"{before}:[{begin},{layer})")
            begin, before = layer, layers[layer]
    return " ".join([*parts, f"{before}:[{begin},{max(layers) + 1})"])
