from __future__ import annotations

from typing import Any

import pytest

from meshnode.resources import FindingCode, Severity
from meshnode.resources.nvidia import read_gpus

GB = 10**9


def test_absent_driver_is_normal_and_named(machine: Any) -> None:
    reading = read_gpus(machine.probe())
    assert reading.gpus == ()
    assert [(finding.code, finding.severity) for finding in reading.findings] == [
        (FindingCode.GPU_DRIVER_ABSENT, Severity.INFO)
    ]


@pytest.mark.parametrize(("code", "advice"), [(12, "NVIDIA runtime"), (18, "restart the machine"), (4, "nvidia-smi")])
def test_driver_that_is_there_but_fails_is_a_warning_with_advice(machine: Any, code: int, advice: str) -> None:
    machine.write("/dev/nvidiactl", "")
    (finding,) = read_gpus(machine.probe(driver=machine.Nvml(init_error=code))).findings
    assert (finding.code, finding.severity) == (FindingCode.GPU_DRIVER_FAILED, Severity.WARNING)
    assert advice in finding.advice


def test_lost_gpu_does_not_hide_the_others(machine: Any) -> None:
    gpus = [machine.Gpu("GPU-a", broken=15), machine.Gpu("GPU-b")]
    reading = read_gpus(machine.probe(gpus=gpus))
    assert [gpu.uuid for gpu in reading.gpus] == ["GPU-b"]
    assert [(finding.code, finding.subject) for finding in reading.findings] == [(FindingCode.GPU_UNREADABLE, "GPU 0")]


def test_gpu_without_own_memory_shares_the_ram(machine: Any) -> None:
    (gpu,) = read_gpus(machine.probe(gpus=[machine.Gpu(name="NVIDIA GB10", total=None)])).gpus
    assert gpu.shares_ram


def test_partitioned_gpu_shows_its_instances_and_not_itself(machine: Any) -> None:
    instances = [machine.Gpu("MIG-1", total=10 * GB, free=9 * GB), None, machine.Gpu("MIG-2", total=20 * GB)]
    whole = machine.Gpu("GPU-a", total=40 * GB, bits=5120, megahertz=1215, mig=instances)
    gpus = read_gpus(machine.probe(gpus=[whole])).gpus
    assert [(gpu.uuid, gpu.free_bytes) for gpu in gpus] == [("MIG-1", 9 * GB), ("MIG-2", 20 * GB)]


def test_instance_has_its_memory_share_of_the_bandwidth(machine: Any) -> None:
    instances = [machine.Gpu("MIG-1", total=10 * GB)]
    whole = machine.Gpu("GPU-a", total=40 * GB, bits=5120, megahertz=1215, mig=instances)
    (gpu,) = read_gpus(machine.probe(gpus=[whole])).gpus
    assert gpu.driver_bandwidth_bytes_per_s == 5120 // 8 * 1215 * 10**6 * 2 // 4


def test_only_our_own_processes_count_as_own(machine: Any) -> None:
    gpu = machine.Gpu(free=4 * GB, processes={10: 7 * GB, 11: 5 * GB, 12: None})
    (read,) = read_gpus(machine.probe(gpus=[gpu]), frozenset({10, 12})).gpus
    assert read.own_bytes == 7 * GB


def test_driver_session_is_closed_again(machine: Any) -> None:
    probe = machine.probe(gpus=[machine.Gpu(broken=15)])
    read_gpus(probe)
    assert probe.driver.open_sessions == 0


def test_driver_is_not_asked_on_a_mac(machine: Any) -> None:
    assert read_gpus(machine.probe(system="darwin", driver=None)).gpus == ()
