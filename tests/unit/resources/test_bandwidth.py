from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshnode.resources import (
    Bandwidth,
    BandwidthSource,
    SystemProbe,
    load_bandwidth,
    measure_memory_bandwidth,
    store_bandwidth,
)
from meshnode.resources.nameplate import nameplate_bandwidth

GB = 10**9
MEASURED = Bandwidth(40 * GB, BandwidthSource.MEASURED)


def test_real_measurement_is_labelled_and_plausible() -> None:
    found = measure_memory_bandwidth(SystemProbe(), array_bytes=8 * 2**20, rounds=2)
    assert found.source is BandwidthSource.MEASURED
    assert found.bytes_per_s is not None
    assert 10**8 < found.bytes_per_s < 10**14


def test_stored_figure_comes_back(machine: Any, tmp_path: Path) -> None:
    store_bandwidth(tmp_path, machine.probe(), MEASURED)
    assert load_bandwidth(tmp_path, machine.probe()) == MEASURED
    assert [path.name for path in tmp_path.iterdir()] == ["memory-bandwidth.json"]


def test_figure_of_another_machine_is_not_believed(machine: Any, tmp_path: Path) -> None:
    store_bandwidth(tmp_path, machine.probe(), MEASURED)
    assert load_bandwidth(tmp_path, machine.probe(processors=64)) == Bandwidth()


def test_other_processor_is_another_machine(machine: Any, tmp_path: Path) -> None:
    machine.write("/proc/cpuinfo", "processor\t: 0\nmodel name\t: EPYC 1\n")
    store_bandwidth(tmp_path, machine.probe(), MEASURED)
    machine.write("/proc/cpuinfo", "processor\t: 0\nmodel name\t: EPYC 2\n")
    assert load_bandwidth(tmp_path, machine.probe()) == Bandwidth()


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"format": 1, "machine": "x", "bytes_per_s": 5}'])
def test_damaged_file_means_unknown(machine: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "memory-bandwidth.json").write_text(content)
    assert load_bandwidth(tmp_path, machine.probe()) == Bandwidth()


def test_nothing_stored_means_unknown(machine: Any, tmp_path: Path) -> None:
    assert load_bandwidth(tmp_path, machine.probe()) == Bandwidth()


def test_only_measured_figures_are_stored(machine: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nameplate"):
        store_bandwidth(tmp_path, machine.probe(), Bandwidth(GB, BandwidthSource.NAMEPLATE))


def test_bandwidth_without_source_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="unknown"):
        Bandwidth(5, BandwidthSource.UNKNOWN)


@pytest.mark.parametrize(
    ("name", "gib", "gb_per_s"),
    [
        ("NVIDIA A100-SXM4-80GB", 80, 2039),
        ("NVIDIA A100 80GB PCIe", 80, 1935),
        ("NVIDIA A100-SXM4-40GB", 40, 1555),
        ("NVIDIA GeForce RTX 5090", 32, 1792),
        ("NVIDIA GeForce RTX 4090", 24, 1008),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16, 576),
        ("NVIDIA GeForce RTX 3090", 24, 936),
        ("NVIDIA L4", 24, 300),
        ("NVIDIA L40S", 48, 864),
        ("Tesla T4", 16, 320),
        ("NVIDIA GB10", 128, 273),
        ("NVIDIA GH200 480GB", 96, 4000),
        ("Apple M2 Ultra", 192, 800),
        ("Apple M3 Ultra", 256, 819),
        ("Apple M4 Max", 128, 546),
        ("Apple M4 Max", 36, 410),
        ("Apple M3 Max", 96, 300),
        ("Apple M3 Max", 64, 400),
        ("Apple M4 Pro", 48, 273),
        ("Apple M4", 16, 120),
    ],
)
def test_known_device_has_its_makers_figure(name: str, gib: int, gb_per_s: int) -> None:
    assert nameplate_bandwidth(name, gib * 2**30) == gb_per_s * GB


@pytest.mark.parametrize("name", ["", "NVIDIA Wonder 1", "NVIDIA GeForce RTX 5080 Laptop GPU", "Apple M9"])
def test_unknown_device_has_none(name: str) -> None:
    assert nameplate_bandwidth(name) is None
