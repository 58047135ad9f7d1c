"""Nodes files and model profiles: tables as a TOML reader gives them, checked and turned into planner types.

Lives here: `parse_profile` and `parse_nodes`, pure functions on tables already read. Not here: opening files
(`meshnode.models.profile`, `meshnode.cli.plan`). The same nodes file describes a mesh for tests, for simulations and
for questions like "what if I buy one more".

A key that is not known is an error that names the nearest one: a typo must not change a plan silently.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from planner.constraints import Exclusion
from planner.errors import InvalidPlanInput, figure, name, whole
from planner.links import Link, LinkMatrix
from planner.model import LayerSpec, ModelSpec
from planner.nodes import DEFAULT_HEADROOM, DeviceSpec, NodeSpec, Willingness
from planner.sizes import parse_size_bytes

Table = Mapping[str, Any]

_PROFILE_KEYS: Final = (
    "name", "native_context", "embedding_bytes", "output_bytes", "tied_embedding", "vocabulary", "hidden_size",
    "head_count", "feed_forward_width", "attention_width", "layers", "source",
)  # fmt: skip
_LAYER_KEYS: Final = (
    "count",
    "weight_bytes",
    "active_weight_bytes",
    "kv_bytes_per_token",
    "k_width",
    "v_width",
    "window",
    "state_bytes",
)
_FILE_KEYS: Final = ("links", "coordinator", "node", "link")
_DEVICE_KEYS: Final = (
    "id",
    "kind",
    "capacity",
    "usable_bytes",
    "headroom",
    "memory_bandwidth_gb_s",
    "compute_tflops",
)
_NODE_KEYS: Final = (
    "id", "kind", "capacity", "usable_bytes", "headroom", "memory_bandwidth_gb_s", "compute_tflops", "device",
    "host_usable_bytes", "cached_bytes", "has_package", "transfer", "willing", "rtt_ms", "excluded", "found",
    "required", "advice",
)  # fmt: skip
_LINK_KEYS: Final = ("from", "to", "rtt_ms", "bandwidth_gb_s", "both")


@dataclass(frozen=True)
class MeshDescription:
    """A nodes file: who takes part, how they are linked, who is left out, and who coordinates (None: the best)."""

    nodes: tuple[NodeSpec, ...]
    links: LinkMatrix
    excluded: tuple[Exclusion, ...]
    coordinator: str | None


def parse_profile(table: Table) -> ModelSpec:
    """A model profile's table as a `ModelSpec`. Raises `InvalidPlanInput` naming the field."""
    _only_known("", table, _PROFILE_KEYS)
    runs = table.get("layers")
    if not isinstance(runs, list) or not runs:
        raise InvalidPlanInput("layers", runs, "at least one [[layers]] run")
    return ModelSpec(
        name=name("name", table.get("name")),
        layers=tuple(_layer_run(f"layers[{index}]", run) for index, run in enumerate(runs)),
        embedding_bytes=_size("embedding_bytes", table, 0),
        output_bytes=_size("output_bytes", table, 0),
        tied_embedding=_switch("tied_embedding", table, False),
        vocabulary=whole("vocabulary", table.get("vocabulary", 0)),
        hidden_size=whole("hidden_size", table.get("hidden_size", 0)),
        native_context=whole("native_context", table.get("native_context", 0)),
        head_count=whole("head_count", table.get("head_count", 0)),
        feed_forward_width=whole("feed_forward_width", table.get("feed_forward_width", 0)),
        attention_width=whole("attention_width", table.get("attention_width", 0)),
    )


def parse_nodes(table: Table) -> MeshDescription:
    """A nodes file's table as nodes, links and exclusions. Raises `InvalidPlanInput` naming the field."""
    _only_known("", table, _FILE_KEYS)
    entries = table.get("node")
    if not isinstance(entries, list) or not entries:
        raise InvalidPlanInput("node", entries, "at least one [[node]]")
    nodes: list[NodeSpec] = []
    excluded: list[Exclusion] = []
    for index, entry in enumerate(entries):
        where = _checked_table(f"node[{index}]", entry, _NODE_KEYS)
        node = _node(where, entry)
        if "excluded" in entry:
            excluded.append(_exclusion(where, entry, node))
        else:
            nodes.append(node)
    ids = [node.id for node in nodes] + [exclusion.node_id for exclusion in excluded]
    for node_id in ids:
        if ids.count(node_id) > 1:
            raise InvalidPlanInput("node.id", node_id, "ids that differ")
    coordinator = table.get("coordinator")
    if coordinator is not None and coordinator not in {node.id for node in nodes}:
        raise InvalidPlanInput("coordinator", coordinator, "the id of a [[node]] that is not excluded")
    return MeshDescription(tuple(nodes), _links(table, ids), tuple(excluded), coordinator)


# --- pieces ---------------------------------------------------------------------------------------------------------


def _layer_run(where: str, run: object) -> LayerSpec:
    table = _as_table(where, run)
    _only_known(where, table, _LAYER_KEYS)
    run_spec = LayerSpec.with_f16_kv(
        count=whole(f"{where}.count", table.get("count", 1), minimum=1),
        weight_bytes=_size(f"{where}.weight_bytes", table),
        kv_bytes_per_token=_size(f"{where}.kv_bytes_per_token", table, 0),
        active_weight_bytes=_size_or_none(f"{where}.active_weight_bytes", table),
        window=whole(f"{where}.window", table.get("window", 0)),
        state_bytes=_size(f"{where}.state_bytes", table, 0),
    )
    if "k_width" in table or "v_width" in table:
        widths = {key: whole(f"{where}.{key}", table.get(key, 0)) for key in ("k_width", "v_width")}
        per_token = 2 * (widths["k_width"] + widths["v_width"])
        if table.get("kv_bytes_per_token", per_token) != per_token:
            expected = f"{per_token}, which k_width and v_width come to, or one of the two ways"
            raise InvalidPlanInput(f"{where}.kv_bytes_per_token", table["kv_bytes_per_token"], expected)
        return replace(run_spec, **widths)
    return run_spec


def _node(where: str, table: Table) -> NodeSpec:
    devices = table.get("device")
    own: tuple[DeviceSpec, ...]
    if devices is None:
        own = (_device(where, {**table, "id": "0"}),)
    elif not isinstance(devices, list) or "capacity" in table or "usable_bytes" in table:
        raise InvalidPlanInput(f"{where}.device", "both", "[[node.device]] tables, or capacity of the node itself")
    else:
        own = tuple(
            _device(_checked_table(f"{where}.device[{number}]", device, _DEVICE_KEYS), device)
            for number, device in enumerate(devices)
        )
    willing = table.get("willing", Willingness.ALWAYS.value)
    if willing not in tuple(Willingness):
        raise InvalidPlanInput(f"{where}.willing", willing, "one of " + ", ".join(Willingness))
    return NodeSpec(
        id=name(f"{where}.id", table.get("id")),
        devices=own,
        host_usable_bytes=_size_or_none(f"{where}.host_usable_bytes", table),
        has_package=_switch_or_none(f"{where}.has_package", table),
        cached_bytes=_size_or_none(f"{where}.cached_bytes", table),
        can_receive=_switch(f"{where}.transfer", table, True),
        rtt_ms=_figure(f"{where}.rtt_ms", table),
        willingness=Willingness(willing),
    )


def _device(where: str, table: Table) -> DeviceSpec:
    usable = _size_or_none(f"{where}.usable_bytes", table)
    capacity = _size_or_none(f"{where}.capacity", table)
    capacity = usable if capacity is None else capacity
    if capacity is None:
        raise InvalidPlanInput(where, None, 'capacity = "24GB" or usable_bytes')
    gb_s = _figure(f"{where}.memory_bandwidth_gb_s", table)
    tflops = _figure(f"{where}.compute_tflops", table)
    return DeviceSpec(
        id=name(f"{where}.id", table.get("id")),
        capacity_bytes=capacity,
        kind=name(f"{where}.kind", table.get("kind", "gpu")),
        headroom=figure(f"{where}.headroom", table.get("headroom", DEFAULT_HEADROOM), maximum=1.0),
        declared_usable_bytes=usable,
        memory_bandwidth_bytes_per_s=None if gb_s is None else gb_s * 1e9,
        compute_flops=None if tflops is None else tflops * 1e12,
    )


def _exclusion(where: str, table: Table, node: NodeSpec) -> Exclusion:
    told = {
        key: None if key not in table else name(f"{where}.{key}", table[key]) for key in ("found", "required", "advice")
    }
    return Exclusion(node.id, name(f"{where}.excluded", table["excluded"]), node=node, **told)


def _links(table: Table, ids: Collection[str]) -> LinkMatrix:
    free = table.get("links")
    if free not in (None, "free"):
        raise InvalidPlanInput("links", free, '"free", or [[link]] tables')
    found: dict[tuple[str, str], Link] = {}
    for index, entry in enumerate(table.get("link", [])):
        where = _checked_table(f"link[{index}]", entry, _LINK_KEYS)
        ends = []
        for key in ("from", "to"):
            if entry.get(key) not in ids:
                near = _nearest(str(entry.get(key)), ids)
                raise InvalidPlanInput(f"{where}.{key}", entry.get(key), f"the id of a [[node]]{near}")
            ends.append(entry[key])
        gb_s = _figure(f"{where}.bandwidth_gb_s", entry)
        rtt_ms = figure(f"{where}.rtt_ms", entry.get("rtt_ms"))
        link = Link(rtt_ms, None if gb_s is None else gb_s * 1e9)
        found[ends[0], ends[1]] = link
        if _switch(f"{where}.both", entry, False):
            found[ends[1], ends[0]] = link
    return LinkMatrix(found, free=free == "free")


def _checked_table(where: str, value: object, known: Collection[str]) -> str:
    _only_known(where, _as_table(where, value), known)
    return where


def _as_table(where: str, value: object) -> Table:
    if not isinstance(value, Mapping):
        raise InvalidPlanInput(where, value, "a table")
    return value


def _only_known(where: str, table: Table, known: Collection[str]) -> None:
    for key in table:
        if key not in known:
            field = f"{where}.{key}" if where else str(key)
            raise InvalidPlanInput(field, key, f"one of {', '.join(known)}{_nearest(str(key), known)}")


def _nearest(found: str, known: Collection[str]) -> str:
    import difflib  # a quarter of a megabyte, which a daemon that reads no nodes file need not hold

    near = difflib.get_close_matches(found, list(known), n=1)
    return f" (nearest: {near[0]})" if near else ""


def _key(field: str) -> str:
    return field.rpartition(".")[2]


def _size_or_none(field: str, table: Table) -> int | None:
    return None if _key(field) not in table else parse_size_bytes(field, table[_key(field)])


def _size(field: str, table: Table, default: int | None = None) -> int:
    if (found := _size_or_none(field, table)) is not None:
        return found
    if default is None:
        raise InvalidPlanInput(field, None, "a size in bytes")
    return default


def _figure(field: str, table: Table) -> float | None:
    return None if _key(field) not in table else figure(field, table[_key(field)])


def _switch_or_none(field: str, table: Table) -> bool | None:
    value = table.get(_key(field))
    if value is not None and not isinstance(value, bool):
        raise InvalidPlanInput(field, value, "true or false")
    return value


def _switch(field: str, table: Table, default: bool) -> bool:
    found = _switch_or_none(field, table)
    return default if found is None else found
