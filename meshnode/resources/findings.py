"""What a survey noticed besides its figures: limits that bind, drivers that fail, settings that can't be met.

A finding is data, so that the daemon emits it as an event, `meshnode capacity` prints it and tests compare it. Its text
is made from its fields in one place, `message`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much the operator should care: `INFO` explains, `WARNING` costs capacity, `ERROR` leaves nothing to give."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class FindingCode(StrEnum):
    """Stable names, one per thing that can be found."""

    NOTHING_TO_OFFER = "nothing_to_offer"
    GPU_DRIVER_ABSENT = "gpu_driver_absent"
    GPU_DRIVER_FAILED = "gpu_driver_failed"
    GPU_UNREADABLE = "gpu_unreadable"
    GPUS_HIDDEN = "gpus_hidden"
    VISIBLE_DEVICES_INVALID = "visible_devices_invalid"
    DEVICE_ORDER_AMBIGUOUS = "device_order_ambiguous"
    DEVICE_FULL = "device_full"
    CGROUP_LIMIT = "cgroup_limit"
    MAX_MEMORY_BINDS = "max_memory_binds"
    DECLARED_EXCEEDS_MEASURED = "declared_exceeds_measured"
    BANDWIDTH_UNKNOWN = "bandwidth_unknown"


@dataclass(frozen=True, slots=True)
class CapacityFinding:
    """One thing noticed. `subject` is the device, file or setting it is about; `found` says what is there, `advice`
    what the operator can do (empty where nothing needs doing)."""

    code: FindingCode
    severity: Severity
    subject: str
    found: str
    advice: str = ""

    @property
    def message(self) -> str:
        """One line for people."""
        line = f"{self.subject}: {self.found}"
        return f"{line}; {self.advice}" if self.advice else line
