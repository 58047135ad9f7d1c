"""CUDA_VISIBLE_DEVICES: which GPUs the operator leaves to this process, matched by identity.

NVML, which reads memory, ignores the variable and numbers GPUs by PCI bus; CUDA obeys it and numbers what is left anew.
Matching "device 0" of one with "device 0" of the other reports the wrong card's memory, so entries are resolved to
UUIDs here and nothing else in meshnode ever speaks of an index.

Rules (CUDA C++ Programming Guide, "CUDA Environment Variables", and PyTorch's `torch.cuda._parse_visible_devices`,
which follows the runtime): entries are indexes or UUIDs (`GPU-...`, `MIG-...`, a unique prefix suffices); the first
invalid entry ends the list; `-1` or an empty value hides everything; an entry named twice hides everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from meshnode.resources.findings import CapacityFinding, FindingCode, Severity

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE = "CUDA_DEVICE_ORDER"


class Addressable(Protocol):
    """A GPU or MIG instance as far as this rule needs it. `index` is NVML's number of the physical GPU."""

    @property
    def uuid(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def index(self) -> int: ...


DeviceT = TypeVar("DeviceT", bound=Addressable)


@dataclass(frozen=True, slots=True)
class _Resolution:
    """What one entry means: a device, the deliberate end of the list, or a `problem`."""

    position: int | None = None
    problem: str = ""


def visible_devices(
    devices: Sequence[DeviceT], environment: Mapping[str, str]
) -> tuple[tuple[DeviceT, ...], tuple[CapacityFinding, ...]]:
    """The devices that the environment leaves visible, in its order, and what was wrong with it."""
    value = environment.get(VARIABLE)
    if value is None or not devices:
        return tuple(devices), ()
    chosen: list[int] = []
    findings: list[CapacityFinding] = []
    entries = [entry.strip() for entry in value.split(",")] if value.strip() else []
    for entry in entries:
        resolution = _resolve(entry, devices)
        if resolution.position in chosen:
            findings.append(_invalid(value, f"entry {entry!r} is named twice, so CUDA hides every GPU"))
            chosen.clear()
            break
        if resolution.position is None:
            if resolution.problem:
                findings.append(_invalid(value, resolution.problem))
            break
        chosen.append(resolution.position)
    findings += _about_order(entries, devices, environment)
    if not chosen:
        findings.append(_hidden(value, len(devices)))
    return tuple(devices[position] for position in chosen), tuple(findings)


def _resolve(entry: str, devices: Sequence[Addressable]) -> _Resolution:
    if entry.startswith(("GPU-", "MIG-")):
        matches = [position for position, device in enumerate(devices) if device.uuid.startswith(entry)]
        if len(matches) == 1:
            return _Resolution(matches[0])
        meaning = "matches no GPU here" if not matches else f"matches {len(matches)} GPUs here"
        return _Resolution(problem=f"entry {entry!r} {meaning}")
    if entry.isascii() and entry.isdigit():
        # An index names a physical GPU. Of a GPU in MIG mode CUDA then takes the first instance.
        for position, device in enumerate(devices):
            if device.index == int(entry):
                return _Resolution(position)
        return _Resolution(problem=f"entry {entry!r} is beyond the {len({d.index for d in devices})} GPU(s) here")
    if entry == "-1":
        return _Resolution()
    return _Resolution(problem=f"entry {entry!r} is neither an index nor a GPU- or MIG- UUID")


def _about_order(
    entries: Sequence[str], devices: Sequence[Addressable], environment: Mapping[str, str]
) -> list[CapacityFinding]:
    """CUDA's own default order is "fastest first", which NVML can't tell; with unlike cards an index is then a
    guess."""
    uses_index = any(entry.isdigit() for entry in entries)
    unlike = len({device.name for device in devices}) > 1
    if not uses_index or not unlike or environment.get(ORDER_VARIABLE) == "PCI_BUS_ID":
        return []
    return [
        CapacityFinding(
            FindingCode.DEVICE_ORDER_AMBIGUOUS,
            Severity.WARNING,
            VARIABLE,
            f"{','.join(entries)!r} gives indexes on a machine with unlike GPUs; taken in PCI bus order",
            f"set {ORDER_VARIABLE}=PCI_BUS_ID or name GPUs by UUID (nvidia-smi -L lists them)",
        )
    ]


def _invalid(value: str, problem: str) -> CapacityFinding:
    return CapacityFinding(
        FindingCode.VISIBLE_DEVICES_INVALID,
        Severity.WARNING,
        VARIABLE,
        f"{value!r}: {problem}; GPUs named after it are hidden too",
        "nvidia-smi -L lists indexes and UUIDs",
    )


def _hidden(value: str, count: int) -> CapacityFinding:
    return CapacityFinding(
        FindingCode.GPUS_HIDDEN, Severity.INFO, VARIABLE, f"{value!r} hides all {count} GPU(s) of this machine"
    )
