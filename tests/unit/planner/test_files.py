"""Nodes files and model profiles are read as written, and a wrong one names its field."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from planner import InvalidPlanInput, Willingness, Workload
from planner.files import parse_nodes, parse_profile
from planner.memory import layer_kv_bytes
from planner.sizes import format_gb, parse_size_bytes

PROFILES = sorted((Path(__file__).parents[3] / "configs" / "models").glob("*.toml"))

# Layers, file bytes where the source states them, and f16 KV bytes per token of full-attention layers.
REFERENCE = {
    "qwen3-coder-480b-a35b-q4_k_xl": (62, None, 253_952),
    "llama-3.1-8b-4bit": (32, 4_637_851_648, 131_072),
    "llama-3.3-70b-q4_k_m": (80, 42_509_438_812, 327_680),
    "qwen3-30b-a3b-q4_k_m": (48, 18_629_420_646, 98_304),
    "qwen3-32b-q4_k_m": (64, 20_197_083_709, 262_144),
    "qwen3-235b-a22b-4bit": (94, 141_733_920_768, 192_512),
    "gpt-oss-20b-mxfp4": (24, 12_109_566_624, 24_576),
    "gpt-oss-120b-mxfp4": (36, 63_372_242_452, 36_864),
    "deepseek-r1-q4_k_m": (61, 404_424_858_009, 70_272),
    "kimi-k2-4bit": (61, 620_622_774_272, 70_272),
    "qwen3-next-80b-4bit": (48, 46_976_204_800, 24_576),
}


def read(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_shipped_profile_agrees_with_the_published_figures(path: Path) -> None:
    model = parse_profile(read(path.read_text()))
    layers, file_bytes, kv_bytes_per_token = REFERENCE[path.stem]
    full = [layer for layer in model.each_layer if not layer.window]
    assert model.layer_count == layers
    assert file_bytes in (None, model.file_bytes)
    assert sum(2 * (layer.k_width + layer.v_width) for layer in full) == kv_bytes_per_token


def test_every_reference_model_has_a_profile() -> None:
    assert {path.stem for path in PROFILES} == set(REFERENCE)


def test_the_seed_model_needs_302_1_gb_at_its_context() -> None:
    path = next(path for path in PROFILES if path.stem.startswith("qwen3-coder-480b"))
    model = parse_profile(read(path.read_text()))
    kv_bytes = sum(layer_kv_bytes(layer, Workload(context=108_288)) for layer in model.each_layer)
    assert model.layer_weight_bytes + model.head_bytes == 274_636_363_636
    assert kv_bytes == 27_499_954_176
    assert format_gb(274_636_363_636 + kv_bytes) == "302.1GB"


def test_profile_round_trips_through_its_own_json() -> None:
    model = parse_profile(read(PROFILES[0].read_text()))
    assert parse_profile(model.to_dict()) == model


def test_nodes_file_gives_nodes_links_exclusions_and_coordinator() -> None:
    mesh = parse_nodes(
        read("""
        coordinator = "a"
        [[node]]
        id = "a"
        capacity = "24GB"
        headroom = 0.0
        memory_bandwidth_gb_s = 936
        willing = "when_needed"
        [[node]]
        id = "b"
        usable_bytes = 74_600_000_000
        [[node]]
        id = "c"
        capacity = "8GiB"
        excluded = "client"
        [[link]]
        from = "a"
        to = "b"
        rtt_ms = 0.4
        bandwidth_gb_s = 1.25
        both = true
    """)
    )
    a, b = mesh.nodes
    assert (a.usable_bytes, a.willingness) == (24 * 10**9, Willingness.WHEN_NEEDED)
    assert a.devices[0].memory_bandwidth_bytes_per_s == 936e9
    assert b.usable_bytes == 74_600_000_000
    assert (mesh.excluded[0].node_id, mesh.excluded[0].reason) == ("c", "client")
    assert mesh.links.get("b", "a") == mesh.links.get("a", "b") is not None
    assert mesh.coordinator == "a"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "node"),
        ("[[node]]\nid='a'", "node[0]"),
        ("[[node]]\nid='a'\ncapacity='24 apples'", "node[0].capacity"),
        ("[[node]]\nid='a'\ncapacity=-1", "node[0].capacity"),
        ("[[node]]\nid='a'\ncapcity='1GB'", "node[0].capcity"),
        ("[[node]]\nid='a'\ncapacity=1\nheadroom=nan", "node[0].headroom"),
        ("[[node]]\nid='a'\ncapacity=1\n[[node]]\nid='a'\ncapacity=1", "node.id"),
        ("coordinator='b'\n[[node]]\nid='a'\ncapacity=1", "coordinator"),
        ("[[node]]\nid='a'\ncapacity=1\n[[link]]\nfrom='a'\nto='z'\nrtt_ms=1", "link[0].to"),
        ("[[node]]\nid='a'\ncapacity=1\nwilling='maybe'", "node[0].willing"),
    ],
)
def test_wrong_nodes_file_names_the_field(text: str, field: str) -> None:
    with pytest.raises(InvalidPlanInput) as caught:
        parse_nodes(read(text))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("name='m'", "layers"),
        ("name='m'\n[[layers]]\ncount=0\nweight_bytes=1", "layers[0].count"),
        ("name='m'\n[[layers]]\ncount=1", "layers[0].weight_bytes"),
        ("name='m'\n[[layers]]\nweight_bytes=1\nkv_bytes_per_token=3", "layers.kv_bytes_per_token"),
        ("name='m'\nembeding_bytes=1\n[[layers]]\nweight_bytes=1", "embeding_bytes"),
        ("[[layers]]\nweight_bytes=1", "name"),
    ],
)
def test_wrong_profile_names_the_field(text: str, field: str) -> None:
    with pytest.raises(InvalidPlanInput) as caught:
        parse_profile(read(text))
    assert caught.value.field == field


def test_sizes_are_decimal_unless_they_say_otherwise() -> None:
    assert parse_size_bytes("x", "154.6GB") == 154_600_000_000
    assert parse_size_bytes("x", "1.5 GiB") == 3 * 2**29
    assert format_gb(147_536_317_812) == "147.5GB"
    assert format_gb(0) == "0.0GB"
