"""One look at the machine: what it offers to the mesh, device by device, and why not more.

The order of rules, each a small function below:
1. devices found: visible NVIDIA GPUs, an Apple GPU, or the RAM itself (a machine without a usable GPU offers its RAM);
2. what each could give: free memory, the container's limit, the working-set limit;
3. RAM is one pool: a share stays with the host, so that the coordinator's budget and a device never promise the same
   byte twice;
4. `max_memory` caps the devices' sum; headroom then makes capacity usable;
5. figures the operator declares replace all of it.

Called by the daemon (at start, then every few seconds) and by `meshnode capacity`. Blocks for milliseconds (NVML), so
the daemon calls it in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from meshnode.resources.capacity import (
    DEFAULT_HEADROOM,
    Bandwidth,
    BandwidthSource,
    CapacitySource,
    DeviceCapacity,
    DeviceKind,
    MachineCapacity,
    usable_of,
)
from meshnode.resources.findings import CapacityFinding, FindingCode, Severity
from meshnode.resources.nameplate import nameplate_bandwidth
from meshnode.resources.nvidia import Gpu, read_gpus
from meshnode.resources.probe import Probe
from meshnode.resources.ram import RamPool, read_ram
from meshnode.resources.sizes import gigabytes
from meshnode.resources.unified import UnifiedMemory, read_unified_memory
from meshnode.resources.visible import visible_devices

HOST_SHARE = 8
"""Where RAM is a device, one eighth of it stays with the host ..."""
HOST_SHARE_MAX_BYTES = 4 * 10**9
"""... and never more than this: a token embedding and the host's compute buffers of the largest models fit in it."""


@dataclass(frozen=True, slots=True)
class OfferSettings:
    """What the operator says about the offer; `None` means "not said".

    `declared_usable_bytes` states the devices' usable bytes directly, `declared_host_bytes` the coordinator's budget;
    `max_memory_bytes` caps the devices' capacity in all; `offer_ram` adds RAM as a slow device next to a GPU;
    `declared_bandwidth_bytes_per_s` overrides every other source; `own_pids` are our engine processes.
    Raises `ValueError` with one line for values that can't be meant.
    """

    headroom: float = DEFAULT_HEADROOM
    max_memory_bytes: int | None = None
    declared_usable_bytes: int | None = None
    declared_host_bytes: int | None = None
    declared_bandwidth_bytes_per_s: int | None = None
    offer_ram: bool = False
    own_pids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.headroom < 1:
            raise ValueError(f"headroom is {self.headroom}, it must be at least 0 and below 1 (0.10 keeps 10 % free)")
        for name in ("max_memory_bytes", "declared_usable_bytes", "declared_bandwidth_bytes_per_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, it must be above 0")
        if self.declared_host_bytes is not None and self.declared_host_bytes < 0:
            raise ValueError(f"declared_host_bytes is {self.declared_host_bytes}, it must be at least 0")
        if self.max_memory_bytes is not None and self.declared_usable_bytes is not None:
            raise ValueError("max_memory_bytes and declared_usable_bytes are both set: from a declared figure nothing "
                             "is subtracted, so give only one of them")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """A device before caps and headroom. `from_ram` marks memory that comes out of the RAM pool."""

    id: str
    kind: DeviceKind
    name: str
    total_bytes: int
    capacity_bytes: int
    bandwidth: Bandwidth
    from_ram: bool


def survey_machine(settings: OfferSettings, probe: Probe, *, ram_bandwidth: Bandwidth | None = None) -> MachineCapacity:
    """What this machine gives under `settings`. `ram_bandwidth` is the remembered measurement (`load_bandwidth`).

    Never raises for anything the machine shows: failures and limits come back as findings, with an error-severity
    `nothing_to_offer` among them when no device can give anything.
    """
    pool = read_ram(probe, settings.own_pids)
    found, findings = _find_devices(settings, probe, pool, ram_bandwidth or Bandwidth())
    findings = [*pool.findings, *findings]
    if settings.declared_usable_bytes is not None:
        devices, noticed = _declared_devices(settings.declared_usable_bytes, found)
    else:
        devices, noticed = _measured_devices(settings, found)
    findings += noticed
    if not devices:
        findings.append(_nothing_to_offer(found, pool))
    findings += [_bandwidth_unknown(device) for device in devices if device.memory_bandwidth_bytes_per_s is None]
    host_bytes, host_source = _host_budget(settings, pool, found, devices)
    return MachineCapacity(devices, host_bytes, host_source, probe.cpu_count(), tuple(findings))


def _find_devices(
    settings: OfferSettings, probe: Probe, pool: RamPool, ram_bandwidth: Bandwidth
) -> tuple[list[_Found], list[CapacityFinding]]:
    reading = read_gpus(probe, settings.own_pids)
    gpus, about_visibility = visible_devices(reading.gpus, probe.environment)
    offered_ram = max(0, pool.available_bytes - _host_share(pool))
    found = [_from_gpu(gpu) for gpu in gpus if not gpu.shares_ram]
    # Several integrated GPUs would share one RAM: the first stands for all of it.
    found += [_from_integrated(gpu, pool, offered_ram) for gpu in gpus if gpu.shares_ram][:1]
    if (apple := read_unified_memory(probe, pool.total_bytes)) is not None:
        found.append(_from_apple(apple, pool, offered_ram))
    if settings.declared_bandwidth_bytes_per_s is not None:
        declared = Bandwidth(settings.declared_bandwidth_bytes_per_s, BandwidthSource.DECLARED)
        found = [replace(device, bandwidth=declared) for device in found]
        ram_bandwidth = ram_bandwidth if found else declared
    if not found or (settings.offer_ram and not any(device.from_ram for device in found)):
        found.append(_Found("cpu", DeviceKind.CPU, "RAM", pool.total_bytes, offered_ram, ram_bandwidth, from_ram=True))
    return found, [*reading.findings, *about_visibility]


def _host_share(pool: RamPool) -> int:
    return min(pool.available_bytes // HOST_SHARE, HOST_SHARE_MAX_BYTES)


def _from_gpu(gpu: Gpu) -> _Found:
    total = gpu.total_bytes or 0
    capacity = min(total, (gpu.free_bytes or 0) + gpu.own_bytes)
    return _Found(gpu.uuid, DeviceKind.CUDA, gpu.name, total, capacity, _gpu_bandwidth(gpu), from_ram=False)


def _from_integrated(gpu: Gpu, pool: RamPool, offered_ram: int) -> _Found:
    return _Found(
        gpu.uuid, DeviceKind.CUDA, gpu.name, pool.total_bytes, offered_ram, _gpu_bandwidth(gpu), from_ram=True
    )


def _from_apple(apple: UnifiedMemory, pool: RamPool, offered_ram: int) -> _Found:
    bandwidth = _nameplate(nameplate_bandwidth(apple.chip, pool.total_bytes))
    capacity = min(apple.working_set_bytes, offered_ram)
    return _Found("metal", DeviceKind.METAL, apple.chip, apple.working_set_bytes, capacity, bandwidth, from_ram=True)


def _gpu_bandwidth(gpu: Gpu) -> Bandwidth:
    """The table first: it knows the cards; the driver's clock and width serve every card it doesn't. An instance of a
    partitioned card goes by the driver's share only, since its name leads to the whole card's figure."""
    is_instance = gpu.uuid.startswith("MIG-")
    figure = None if is_instance else nameplate_bandwidth(gpu.name, gpu.total_bytes)
    return _nameplate(figure or gpu.driver_bandwidth_bytes_per_s)


def _nameplate(bytes_per_s: int | None) -> Bandwidth:
    return Bandwidth() if bytes_per_s is None else Bandwidth(bytes_per_s, BandwidthSource.NAMEPLATE)


def _measured_devices(
    settings: OfferSettings, found: list[_Found]
) -> tuple[tuple[DeviceCapacity, ...], list[CapacityFinding]]:
    """Cap the sum in the devices' order, then take the headroom off; devices with nothing left are findings."""
    cap = settings.max_memory_bytes
    left = cap if cap is not None else sum(device.capacity_bytes for device in found)
    devices: list[DeviceCapacity] = []
    findings: list[CapacityFinding] = []
    for device in found:
        capacity = min(device.capacity_bytes, left)
        left -= capacity
        if capacity > 0:
            devices.append(_device(device, capacity, usable_of(capacity, settings.headroom), settings.headroom))
        elif device.capacity_bytes == 0:
            findings.append(_device_full(device))
    possible = sum(device.capacity_bytes for device in found)
    if cap is not None and cap < possible:
        findings.append(_cap_binds(cap, possible))
    return tuple(devices), findings


def _device(device: _Found, capacity: int, usable: int, headroom: float) -> DeviceCapacity:
    return DeviceCapacity(
        id=device.id,
        kind=device.kind,
        name=device.name,
        total_bytes=device.total_bytes,
        capacity_bytes=capacity,
        usable_bytes=usable,
        headroom=headroom,
        memory_bandwidth_bytes_per_s=device.bandwidth.bytes_per_s,
        bandwidth_source=device.bandwidth.source,
        source=CapacitySource.MEASURED,
    )


def _declared_devices(declared: int, found: list[_Found]) -> tuple[tuple[DeviceCapacity, ...], list[CapacityFinding]]:
    """The declared figure on the devices found; on several of them in proportion to their memory, to the last byte."""
    whole = sum(device.total_bytes for device in found)
    devices: list[DeviceCapacity] = []
    left_bytes, left_total = declared, whole
    for device in found:
        last = device is found[-1] or left_total == 0
        part = left_bytes if last else left_bytes * device.total_bytes // left_total
        left_bytes, left_total = left_bytes - part, left_total - device.total_bytes
        stated = replace(_device(device, part, part, 0.0), total_bytes=part, source=CapacitySource.DECLARED)
        if part > 0:
            devices.append(stated)
    measured = sum(device.capacity_bytes for device in found)
    return tuple(devices), [_declared_exceeds(declared, measured)] if declared > measured else []


def _host_budget(
    settings: OfferSettings, pool: RamPool, found: list[_Found], devices: tuple[DeviceCapacity, ...]
) -> tuple[int, CapacitySource]:
    """RAM for coordinating: what the pool has beyond the devices that live in it, less the headroom."""
    if settings.declared_host_bytes is not None:
        return settings.declared_host_bytes, CapacitySource.DECLARED
    in_ram = {device.id for device in found if device.from_ram}
    taken = sum(device.capacity_bytes for device in devices if device.id in in_ram)
    # A declared figure beyond the whole RAM can't be this RAM, so it takes nothing from the host.
    if taken > pool.total_bytes:
        taken = 0
    remaining = max(pool.available_bytes - taken, _host_share(pool))
    return usable_of(remaining, settings.headroom), CapacitySource.MEASURED


def _device_full(device: _Found) -> CapacityFinding:
    return CapacityFinding(
        FindingCode.DEVICE_FULL,
        Severity.WARNING,
        device.id,
        f"{device.name} has {gigabytes(device.total_bytes)}, all of it held by other processes",
        "end what uses it or leave it out",
    )


def _cap_binds(cap: int, possible: int) -> CapacityFinding:
    return CapacityFinding(
        FindingCode.MAX_MEMORY_BINDS,
        Severity.INFO,
        "max_memory",
        f"{gigabytes(cap)} of the {gigabytes(possible)} that could be offered",
    )


def _declared_exceeds(declared: int, measured: int) -> CapacityFinding:
    return CapacityFinding(
        FindingCode.DECLARED_EXCEEDS_MEASURED,
        Severity.WARNING,
        "declare_usable",
        f"{gigabytes(declared)} declared, {gigabytes(measured)} measured here",
        "lower it, or keep it for planning only: a stage that fills it will fail",
    )


def _nothing_to_offer(found: list[_Found], pool: RamPool) -> CapacityFinding:
    tried = ", ".join(f"{device.id} 0 of {gigabytes(device.total_bytes)}" for device in found)
    return CapacityFinding(
        FindingCode.NOTHING_TO_OFFER,
        Severity.ERROR,
        "capacity",
        f"this machine can give no memory ({tried}; RAM available {gigabytes(pool.available_bytes)})",
        "free memory, raise the container's limit, or join as a client",
    )


def _bandwidth_unknown(device: DeviceCapacity) -> CapacityFinding:
    advice = "run `meshnode bench` once" if device.kind is DeviceKind.CPU else "set memory_bandwidth_gb_s"
    return CapacityFinding(
        FindingCode.BANDWIDTH_UNKNOWN,
        Severity.INFO,
        device.id,
        f"memory bandwidth of {device.name} is unknown, plans that use it are capacity-only",
        advice,
    )
