from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.resources import (
    Bandwidth,
    BandwidthSource,
    CapacitySource,
    DeviceKind,
    FindingCode,
    OfferSettings,
    SystemProbe,
    survey_machine,
)
from meshnode.resources.capacity import usable_of

GB = 10**9
GIB = 2**30


def codes(machine_capacity: Any) -> set[FindingCode]:
    return {finding.code for finding in machine_capacity.findings}


def test_machine_without_gpu_offers_its_ram(machine: Any) -> None:
    found = survey_machine(OfferSettings(), machine.probe(total=16 * GB, available=16 * GB))
    (device,) = found.devices
    assert (device.id, device.kind, device.total_bytes) == ("cpu", DeviceKind.CPU, 16 * GB)
    assert (device.capacity_bytes, device.usable_bytes) == (14 * GB, 12_600_000_000)


def test_ram_device_and_host_budget_never_promise_the_same_byte(machine: Any) -> None:
    found = survey_machine(OfferSettings(headroom=0.0), machine.probe(total=16 * GB, available=16 * GB))
    assert found.usable_bytes + found.host_usable_bytes == 16 * GB
    assert found.host_usable_bytes == 2 * GB


def test_host_share_of_a_large_machine_is_bounded(machine: Any) -> None:
    found = survey_machine(OfferSettings(headroom=0.0), machine.probe(total=256 * GB, available=256 * GB))
    assert found.host_usable_bytes == 4 * GB


def test_memory_of_other_processes_is_not_offered(machine: Any) -> None:
    found = survey_machine(OfferSettings(headroom=0.0), machine.probe(total=64 * GB, available=8 * GB))
    assert found.usable_bytes + found.host_usable_bytes == 8 * GB


def test_each_gpu_is_a_device_with_its_free_memory(machine: Any) -> None:
    gpus = [machine.Gpu("GPU-a", free=20 * GB), machine.Gpu("GPU-b", "NVIDIA L4", free=10 * GB)]
    found = survey_machine(OfferSettings(), machine.probe(gpus=gpus))
    assert [(device.id, device.capacity_bytes, device.usable_bytes) for device in found.devices] == [
        ("GPU-a", 20 * GB, 18 * GB),
        ("GPU-b", 10 * GB, 9 * GB),
    ]


def test_ram_beside_a_gpu_is_host_budget_only(machine: Any) -> None:
    found = survey_machine(OfferSettings(), machine.probe(gpus=[machine.Gpu()], available=50 * GB))
    assert [device.kind for device in found.devices] == [DeviceKind.CUDA]
    assert (found.host_usable_bytes, found.host_source) == (45 * GB, CapacitySource.MEASURED)


def test_ram_beside_a_gpu_is_a_device_if_the_operator_says_so(machine: Any) -> None:
    probe = machine.probe(gpus=[machine.Gpu()], available=50 * GB)
    found = survey_machine(OfferSettings(offer_ram=True, headroom=0.0), probe)
    assert [device.kind for device in found.devices] == [DeviceKind.CUDA, DeviceKind.CPU]
    assert found.devices[1].usable_bytes + found.host_usable_bytes == 50 * GB


def test_own_engine_on_a_gpu_does_not_shrink_the_offer(machine: Any) -> None:
    gpu = machine.Gpu(free=4 * GB, processes={10: 18 * GB, 11: 2 * GB})
    found = survey_machine(OfferSettings(own_pids=frozenset({10})), machine.probe(gpus=[gpu]))
    assert found.devices[0].capacity_bytes == 22 * GB


def test_hidden_gpus_leave_the_ram(machine: Any) -> None:
    probe = machine.probe(gpus=[machine.Gpu()], environment={"CUDA_VISIBLE_DEVICES": ""})
    found = survey_machine(OfferSettings(), probe)
    assert [device.kind for device in found.devices] == [DeviceKind.CPU]
    assert FindingCode.GPUS_HIDDEN in codes(found)


def test_visible_devices_are_matched_by_identity(machine: Any) -> None:
    gpus = [machine.Gpu("GPU-a", free=1 * GB), machine.Gpu("GPU-b", free=20 * GB)]
    probe = machine.probe(gpus=gpus, environment={"CUDA_VISIBLE_DEVICES": "GPU-b"})
    assert [device.id for device in survey_machine(OfferSettings(), probe).devices] == ["GPU-b"]


def test_cap_is_taken_up_in_the_devices_order(machine: Any) -> None:
    gpus = [machine.Gpu("GPU-a"), machine.Gpu("GPU-b"), machine.Gpu("GPU-c")]
    found = survey_machine(OfferSettings(max_memory_bytes=30 * GB), machine.probe(gpus=gpus))
    assert [(device.id, device.capacity_bytes) for device in found.devices] == [("GPU-a", 24 * GB), ("GPU-b", 6 * GB)]
    assert FindingCode.MAX_MEMORY_BINDS in codes(found)


def test_cap_above_what_is_there_changes_nothing(machine: Any) -> None:
    probe = machine.probe(gpus=[machine.Gpu()])
    assert survey_machine(OfferSettings(max_memory_bytes=100 * GB), probe) == survey_machine(OfferSettings(), probe)


def test_cap_on_a_ram_machine_is_the_capacity_shown(machine: Any) -> None:
    found = survey_machine(OfferSettings(max_memory_bytes=4 * GB), machine.probe(total=64 * GB, available=60 * GB))
    assert (found.capacity_bytes, found.usable_bytes) == (4 * GB, 3_600_000_000)


def test_declared_usable_is_not_reduced_and_marked(machine: Any) -> None:
    settings = OfferSettings(declared_usable_bytes=80 * GB, headroom=0.5)
    (device,) = survey_machine(settings, machine.probe(total=24 * GB, available=20 * GB)).devices
    assert (device.capacity_bytes, device.usable_bytes, device.headroom) == (80 * GB, 80 * GB, 0.0)
    assert device.declared


def test_declared_above_the_measured_is_told(machine: Any) -> None:
    found = survey_machine(OfferSettings(declared_usable_bytes=80 * GB), machine.probe(available=20 * GB))
    assert FindingCode.DECLARED_EXCEEDS_MEASURED in codes(found)


def test_declared_figure_beyond_the_ram_leaves_the_host_its_ram(machine: Any) -> None:
    found = survey_machine(
        OfferSettings(declared_usable_bytes=80 * GB), machine.probe(total=24 * GB, available=20 * GB)
    )
    assert (found.host_usable_bytes, found.host_source) == (18 * GB, CapacitySource.MEASURED)


def test_declared_figure_within_the_ram_is_taken_from_the_host(machine: Any) -> None:
    found = survey_machine(
        OfferSettings(declared_usable_bytes=20 * GB), machine.probe(total=24 * GB, available=24 * GB)
    )
    assert found.host_usable_bytes == 3_600_000_000


def test_declared_figure_keeps_the_gpus_identity(machine: Any) -> None:
    found = survey_machine(OfferSettings(declared_usable_bytes=20 * GB), machine.probe(gpus=[machine.Gpu("GPU-a")]))
    (device,) = found.devices
    assert (device.id, device.kind, device.usable_bytes, device.declared) == ("GPU-a", DeviceKind.CUDA, 20 * GB, True)


@given(declared=st.integers(1, 10**12), totals=st.lists(st.integers(0, 10**11), min_size=1, max_size=5))
def test_declared_figure_over_several_gpus_adds_up_to_the_byte(declared: int, totals: list[int]) -> None:
    from meshnode.resources.survey import _declared_devices, _Found

    found = [_Found(str(n), DeviceKind.CUDA, "x", t, t, Bandwidth(), from_ram=False) for n, t in enumerate(totals)]
    devices, _ = _declared_devices(declared, found)
    assert sum(device.usable_bytes for device in devices) == declared


def test_declared_host_budget_is_marked(machine: Any) -> None:
    found = survey_machine(OfferSettings(declared_host_bytes=8 * GB), machine.probe())
    assert (found.host_usable_bytes, found.host_source) == (8 * GB, CapacitySource.DECLARED)


def test_nothing_to_give_is_an_error_finding_with_advice(machine: Any) -> None:
    found = survey_machine(OfferSettings(), machine.probe(total=8 * GB, available=0))
    (nothing,) = [finding for finding in found.findings if finding.severity == "error"]
    assert (found.devices, found.usable_bytes) == ((), 0)
    assert nothing.code is FindingCode.NOTHING_TO_OFFER
    assert "join as a client" in nothing.advice


def test_gpu_that_others_fill_is_not_replaced_by_ram(machine: Any) -> None:
    found = survey_machine(OfferSettings(), machine.probe(gpus=[machine.Gpu(free=0)]))
    assert found.devices == ()
    assert {FindingCode.DEVICE_FULL, FindingCode.NOTHING_TO_OFFER} <= codes(found)


def test_nameplate_bandwidth_of_a_known_gpu(machine: Any) -> None:
    (device,) = survey_machine(OfferSettings(), machine.probe(gpus=[machine.Gpu()])).devices
    assert (device.memory_bandwidth_bytes_per_s, device.bandwidth_source) == (1008 * GB, BandwidthSource.NAMEPLATE)


def test_unknown_gpu_goes_by_the_drivers_bus_and_clock(machine: Any) -> None:
    gpu = machine.Gpu(name="NVIDIA Wonder 1", bits=384, megahertz=10501)
    (device,) = survey_machine(OfferSettings(), machine.probe(gpus=[gpu])).devices
    assert (device.memory_bandwidth_bytes_per_s, device.bandwidth_source) == (1_008_096_000_000, "nameplate")


def test_unknown_bandwidth_is_none_and_told(machine: Any) -> None:
    found = survey_machine(OfferSettings(), machine.probe())
    assert (found.devices[0].memory_bandwidth_bytes_per_s, found.devices[0].bandwidth_source) == (None, "unknown")
    assert FindingCode.BANDWIDTH_UNKNOWN in codes(found)


def test_measured_bandwidth_belongs_to_the_ram_device(machine: Any) -> None:
    measured = Bandwidth(40 * GB, BandwidthSource.MEASURED)
    probe = machine.probe(gpus=[machine.Gpu()])
    found = survey_machine(OfferSettings(offer_ram=True), probe, ram_bandwidth=measured)
    assert [device.bandwidth_source for device in found.devices] == ["nameplate", "measured"]


def test_declared_bandwidth_overrides_and_says_so(machine: Any) -> None:
    settings = OfferSettings(declared_bandwidth_bytes_per_s=500 * GB)
    (device,) = survey_machine(settings, machine.probe(gpus=[machine.Gpu()])).devices
    assert (device.memory_bandwidth_bytes_per_s, device.bandwidth_source) == (500 * GB, "declared")


def a_mac(machine: Any, gib: int, **more: Any) -> Any:
    settings = {"machdep.cpu.brand_string": "Apple M3 Ultra", **more.pop("settings", {})}
    figures = {"total": gib * GIB, "available": gib * GIB, **more}
    return machine.probe(system="darwin", architecture="arm64", settings=settings, **figures)


def test_mac_offers_its_working_set_limit(machine: Any) -> None:
    (device,) = survey_machine(OfferSettings(), a_mac(machine, 96)).devices
    assert (device.id, device.kind, device.capacity_bytes) == ("metal", DeviceKind.METAL, 72 * GIB)
    assert device.memory_bandwidth_bytes_per_s == 819 * GB


def test_small_mac_gives_two_thirds(machine: Any) -> None:
    (device,) = survey_machine(OfferSettings(), a_mac(machine, 8)).devices
    assert device.capacity_bytes // 2**20 == 5461


def test_wired_limit_of_the_operator_counts(machine: Any) -> None:
    probe = a_mac(machine, 64, settings={"iogpu.wired_limit_mb": "57344"})
    assert survey_machine(OfferSettings(), probe).devices[0].capacity_bytes == 56 * GIB


def test_wired_limit_of_zero_is_the_default(machine: Any) -> None:
    probe = a_mac(machine, 64, settings={"iogpu.wired_limit_mb": "0"})
    assert survey_machine(OfferSettings(), probe).devices[0].capacity_bytes == 48 * GIB


def test_mac_whose_memory_others_hold_offers_what_is_left(machine: Any) -> None:
    found = survey_machine(OfferSettings(headroom=0.0), a_mac(machine, 64, available=16 * GIB))
    assert found.usable_bytes + found.host_usable_bytes == 16 * GIB


def test_intel_mac_offers_its_ram(machine: Any) -> None:
    found = survey_machine(OfferSettings(), machine.probe(system="darwin", architecture="x86_64"))
    assert [device.kind for device in found.devices] == [DeviceKind.CPU]


def test_integrated_gpu_offers_the_ram_once(machine: Any) -> None:
    gpus = [machine.Gpu(name="NVIDIA GB10", total=None)]
    found = survey_machine(OfferSettings(offer_ram=True, headroom=0.0), machine.probe(gpus=gpus, available=64 * GB))
    assert [(device.kind, device.memory_bandwidth_bytes_per_s) for device in found.devices] == [("cuda", 273 * GB)]
    assert found.usable_bytes + found.host_usable_bytes == 64 * GB


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"headroom": 1.0}, "headroom"),
        ({"headroom": -0.1}, "headroom"),
        ({"headroom": math.nan}, "headroom"),
        ({"max_memory_bytes": 0}, "max_memory_bytes"),
        ({"declared_usable_bytes": -1}, "declared_usable_bytes"),
        ({"declared_host_bytes": -1}, "declared_host_bytes"),
        ({"max_memory_bytes": 1, "declared_usable_bytes": 1}, "both"),
    ],
)
def test_setting_that_cannot_be_meant_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        OfferSettings(**settings)


@given(capacity=st.integers(0, 10**15), percent=st.integers(0, 99))
def test_usable_is_exact_decimal_arithmetic(capacity: int, percent: int) -> None:
    assert usable_of(capacity, percent / 100) == capacity * (100 - percent) // 100


def test_this_machine_gives_something_within_its_memory() -> None:
    probe = SystemProbe()
    found = survey_machine(OfferSettings(), probe)
    assert found.devices
    assert found.usable_bytes > 0
    for device in found.devices:
        assert device.usable_bytes == usable_of(device.capacity_bytes, 0.10)
        assert device.capacity_bytes <= device.total_bytes
    ram = sum(device.usable_bytes for device in found.devices if device.kind is DeviceKind.CPU)
    assert ram + found.host_usable_bytes <= probe.memory().total_bytes
    assert found.cpu_count >= 1
