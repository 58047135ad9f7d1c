"""Memory bandwidth of this machine's RAM: measured once, remembered in the state directory.

`meshnode bench` calls `measure_memory_bandwidth` and `store_bandwidth`; every survey reads `load_bandwidth`, which
costs one small file. The figure is bound to the machine it was measured on: a state directory that moved to another
machine, or a VM that was given other processors, has no figure until it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from meshnode.child import ChildFailed, Json, call_in_child_blocking
from meshnode.resources.capacity import Bandwidth, BandwidthSource
from meshnode.resources.probe import Probe

_FILE_NAME = "memory-bandwidth.json"
_FORMAT = 1
_WORKER = "meshnode.resources.bandwidth_worker"
_WORKER_TIMEOUT_S = 120.0

_MAX_THREADS = 16
"""Sixteen streams fill the memory channels of any machine of this kind; more only cost memory."""
_ARRAY_BYTES = 48 * 2**20
_ARRAYS_PER_THREAD = 3
_ROUNDS = 5
_MEMORY_SHARE = 10
"""The measurement takes at most one tenth of the available RAM."""


def measure_memory_bandwidth(probe: Probe, *, array_bytes: int = _ARRAY_BYTES, rounds: int = _ROUNDS) -> Bandwidth:
    """Measure RAM bandwidth in a child process; blocks for about a second. The better of STREAM copy and triad.

    Raises `meshnode.child.ChildFailed` when the child dies (out of memory, numpy missing).
    """
    threads = min(_MAX_THREADS, probe.cpu_count())
    allowed = probe.memory().available_bytes // _MEMORY_SHARE // (_ARRAYS_PER_THREAD * threads)
    argument: list[Json] = [threads, max(2**20, min(array_bytes, allowed)), rounds]
    match call_in_child_blocking(_WORKER, argument, timeout_s=_WORKER_TIMEOUT_S):
        case [int(copy), int(triad)]:
            return Bandwidth(max(copy, triad), BandwidthSource.MEASURED)
        case answer:
            raise ChildFailed(_WORKER, 0, f"expected two figures, got {answer!r}")


def machine_identity(probe: Probe) -> str:
    """A hash that changes when the figure would: processor model and count, RAM in GiB, architecture, machine id."""
    model = _processor_model(probe)
    machine_id = (probe.read_text("/etc/machine-id") or "").strip()
    ram_gib = round(probe.memory().total_bytes / 2**30)
    facts = json.dumps([probe.system, probe.architecture, model, probe.cpu_count(), ram_gib, machine_id])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def load_bandwidth(state_dir: Path, probe: Probe) -> Bandwidth:
    """The remembered figure, or unknown: nothing measured yet, another machine, or a file that is damaged."""
    try:
        stored = json.loads((state_dir / _FILE_NAME).read_text(encoding="utf-8"))
        if stored["format"] != _FORMAT or stored["machine"] != machine_identity(probe):
            return Bandwidth()
        figure = stored["bytes_per_s"]
    except (OSError, ValueError, KeyError, TypeError):
        return Bandwidth()
    if not isinstance(figure, int) or figure <= 0:
        return Bandwidth()
    return Bandwidth(figure, BandwidthSource.MEASURED)


def store_bandwidth(state_dir: Path, probe: Probe, measured: Bandwidth) -> None:
    """Remember `measured` for this machine; replaces the file atomically. Raises `OSError` if it can't be written."""
    if measured.source is not BandwidthSource.MEASURED:
        raise ValueError(f"only a measured bandwidth is remembered, this one is {measured.source}")
    content = {"format": _FORMAT, "machine": machine_identity(probe), "bytes_per_s": measured.bytes_per_s}
    descriptor, temporary = tempfile.mkstemp(prefix=_FILE_NAME, dir=state_dir)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(temporary, state_dir / _FILE_NAME)
    except BaseException:
        os.unlink(temporary)
        raise


def _processor_model(probe: Probe) -> str:
    for line in (probe.read_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Model", "cpu model"}:
            return value.strip()
    return probe.sysctl("machdep.cpu.brand_string") or ""
