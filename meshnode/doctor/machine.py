"""Checks of this machine, which need no running node: state directory, memory, devices, limits, the port.

What lives here: `MachineFacts`, `look_at_machine`, which reads them, and `check_machine`, which judges them without
I/O. What does not: the mesh (`meshnode.doctor.mesh`). Where a node runs, it looks itself: its cgroup, its limits and
its user decide, not those of the shell that asks.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meshnode.config import NodeConfig
from meshnode.doctor.finding import Finding, Grade
from meshnode.doctor.state_files import StateFacts, check_state, look_at_state
from meshnode.offers import survey
from meshnode.resources import CapacitySource, FindingCode, MachineCapacity, Severity, SystemProbe
from meshnode.resources.probe import HostMemory
from meshnode.service.notifying import port_holder
from meshnode.transport.addresses import parse_address
from meshnode.transport.clock import boottime_s
from meshnode.transport.udp import ListenFailed, bind_listeners

LIMITS: Final = {"RLIMIT_AS": "address space", "RLIMIT_DATA": "data segment"}
"""The process limits that stop an engine from allocating what the node offers (getrlimit(2))."""
MIN_OPEN_FILES: Final = 256
"""Control clients, model files and workers; links share one socket."""
_DEVICE_CODES: Final = frozenset({
    FindingCode.GPU_DRIVER_ABSENT, FindingCode.GPU_DRIVER_FAILED, FindingCode.GPU_UNREADABLE, FindingCode.GPUS_HIDDEN,
    FindingCode.VISIBLE_DEVICES_INVALID, FindingCode.DEVICE_ORDER_AMBIGUOUS, FindingCode.DEVICE_FULL,
    FindingCode.BANDWIDTH_UNKNOWN,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What was seen. `limits` are soft limits in bytes by name, unlimited ones left out; `port_problem` says why the
    node could not listen (None where it could, or does)."""

    state: StateFacts
    capacity: MachineCapacity
    memory: HostMemory
    limits: dict[str, int]
    open_files: int | None
    listen: str
    listening: bool
    port_problem: str | None = None
    port_advice: str = ""


def look_at_machine(config: NodeConfig, *, running: bool) -> MachineFacts:
    """Read everything. Blocks for some milliseconds. `running`: this process is the node, which has its port."""
    problem, advice = (None, "") if running else _port_problem(config)
    soft = {name: resource.getrlimit(getattr(resource, name))[0] for name in LIMITS if hasattr(resource, name)}
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MachineFacts(
        state=look_at_state(config.state_dir),
        capacity=survey(config),
        memory=SystemProbe().memory(),
        limits={name: limit for name, limit in soft.items() if limit != resource.RLIM_INFINITY},
        open_files=None if files == resource.RLIM_INFINITY else files,
        listen=str(config.listen),
        listening=running,
        port_problem=problem,
        port_advice=advice,
    )


def _port_problem(config: NodeConfig) -> tuple[str | None, str]:
    try:
        for socket in bind_listeners((parse_address(str(config.listen)),), boottime_s):
            socket.close()
    except ListenFailed as error:
        holder = port_holder(config.listen.port, "udp")
        return f"{os.strerror(error.problem)}{holder}", error.advice
    return None, ""


def check_machine(facts: MachineFacts, *, client: bool = False) -> list[Finding]:
    """Judge the facts. A client gives nothing, so that nothing is wrong with having nothing to give."""
    return [
        *check_state(facts.state),
        *_memory(facts, client),
        *_devices(facts.capacity),
        *_limits(facts),
        _port(facts),
    ]


def _memory(facts: MachineFacts, client: bool) -> Iterator[Finding]:
    """What is offered against what this process may have."""
    checked = "memory offered against the machine, its container's limits and the settings"
    capacity = facts.capacity
    notes = [finding for finding in capacity.findings if finding.code not in _DEVICE_CODES]
    bad = [note for note in notes if note.severity is not Severity.INFO]
    for note in bad:
        grade = Grade.WARNING if note.severity is Severity.WARNING or client else Grade.ERROR
        yield Finding("memory", grade, note.subject, checked, note.found, note.advice)
    if bad:
        return
    limited = "; ".join(f"{note.subject}: {note.found}" for note in notes)
    found = (
        f"{_gb(capacity.usable_bytes)} usable on {len(capacity.devices)} device(s), "
        f"{_gb(capacity.host_usable_bytes)} as a coordinator's host; the machine has {_gb(facts.memory.total_bytes)} "
        f"RAM, {_gb(facts.memory.available_bytes)} available"
    )
    yield Finding("memory", Grade.OK, "this machine", checked, found + (f"; {limited}" if limited else ""))


def _devices(capacity: MachineCapacity) -> Iterator[Finding]:
    checked = "devices that memory is offered on, and what their drivers say"
    for note in capacity.findings:
        if note.code in _DEVICE_CODES and note.severity is not Severity.INFO:
            grade = Grade.WARNING if note.severity is Severity.WARNING else Grade.ERROR
            yield Finding("devices", grade, note.subject, checked, note.found, note.advice)
    for device in capacity.devices:
        figure = "declared" if device.source is CapacitySource.DECLARED else "measured"
        found = f"{device.name} ({device.kind.value}), {_gb(device.usable_bytes)} usable ({figure})"
        hints = [n for n in capacity.findings if n.subject == device.id and n.code is FindingCode.BANDWIDTH_UNKNOWN]
        advice = hints[0].advice if hints else ""
        if hints:
            found += ", memory bandwidth unknown: plans with it know no speed"
        yield Finding("devices", Grade.OK, device.id, checked, found, advice)


def _limits(facts: MachineFacts) -> Iterator[Finding]:
    """An engine inherits the node's limits: one below the offer fails at loading, not before."""
    checked = "process limits (ulimit) against what is offered"
    in_ram = sum(device.usable_bytes for device in facts.capacity.devices) + facts.capacity.host_usable_bytes
    fine = True
    for name, limit in facts.limits.items():
        if limit < in_ram:
            fine = False
            found = f"{LIMITS[name]} limited to {_gb(limit)}, below the {_gb(in_ram)} that are offered"
            letter = "v" if name == "RLIMIT_AS" else "d"
            advice = f"raise it (ulimit -{letter} unlimited; in a unit Limit{name[7:]}=infinity), or set max_memory"
            yield Finding("limits", Grade.ERROR, name, checked, found, advice)
    if facts.open_files is not None and facts.open_files < MIN_OPEN_FILES:
        fine = False
        found = f"at most {facts.open_files} open files"
        advice = f"raise it to {MIN_OPEN_FILES} or more (ulimit -n 4096; in a unit LimitNOFILE=4096)"
        yield Finding("limits", Grade.WARNING, "RLIMIT_NOFILE", checked, found, advice)
    if fine:
        found = "no process limit stands in the way"
        yield Finding("limits", Grade.OK, "this process", checked, found)


def _port(facts: MachineFacts) -> Finding:
    checked = "whether the node can listen on its UDP port"
    if facts.port_problem is not None:
        return Finding("port", Grade.ERROR, facts.listen, checked, facts.port_problem, facts.port_advice)
    found = "the node listens there" if facts.listening else "free"
    return Finding("port", Grade.OK, facts.listen, checked, found)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}GB"
