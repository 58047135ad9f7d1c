from __future__ import annotations

from dataclasses import replace

from meshnode.resources import (
    BandwidthSource,
    CapacitySource,
    DeviceCapacity,
    DeviceKind,
    MachineCapacity,
    capacity_changed_enough,
)


def a_device(usable: int = 1000, *, device_id: str = "GPU-a", bandwidth: int | None = 100) -> DeviceCapacity:
    source = BandwidthSource.UNKNOWN if bandwidth is None else BandwidthSource.NAMEPLATE
    return DeviceCapacity(
        id=device_id,
        kind=DeviceKind.CUDA,
        name="x",
        total_bytes=2000,
        capacity_bytes=usable,
        usable_bytes=usable,
        headroom=0.0,
        memory_bandwidth_bytes_per_s=bandwidth,
        bandwidth_source=source,
        source=CapacitySource.MEASURED,
    )


def a_machine(*devices: DeviceCapacity, host: int = 1000) -> MachineCapacity:
    return MachineCapacity(devices, host, CapacitySource.MEASURED, 4, ())


OLD = a_machine(a_device(1000))


def test_five_percent_is_not_enough() -> None:
    assert not capacity_changed_enough(OLD, a_machine(a_device(950)))
    assert not capacity_changed_enough(OLD, a_machine(a_device(1050)))


def test_more_than_five_percent_is_enough() -> None:
    assert capacity_changed_enough(OLD, a_machine(a_device(949)))
    assert capacity_changed_enough(OLD, a_machine(a_device(1051)))


def test_one_device_of_many_is_judged_alone() -> None:
    old = a_machine(a_device(1000), a_device(100, device_id="GPU-b"))
    assert capacity_changed_enough(old, a_machine(a_device(1000), a_device(90, device_id="GPU-b")))


def test_a_device_that_comes_or_goes_counts() -> None:
    both = a_machine(a_device(1000), a_device(1, device_id="GPU-b"))
    assert capacity_changed_enough(OLD, both)
    assert capacity_changed_enough(both, OLD)


def test_host_budget_counts() -> None:
    assert capacity_changed_enough(OLD, a_machine(a_device(1000), host=900))


def test_capacity_that_appears_from_nothing_counts() -> None:
    assert capacity_changed_enough(a_machine(), OLD)


def test_bandwidth_that_becomes_known_counts() -> None:
    assert capacity_changed_enough(a_machine(a_device(bandwidth=None)), OLD)


def test_source_that_becomes_declared_counts() -> None:
    assert capacity_changed_enough(OLD, a_machine(replace(a_device(1000), source=CapacitySource.DECLARED)))


def test_same_again_is_no_change() -> None:
    assert not capacity_changed_enough(OLD, OLD)
