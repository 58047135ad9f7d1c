"""What this machine can give to the mesh: memory by device, host memory, bandwidth. See `survey` for the rules."""

from meshnode.resources.bandwidth import load_bandwidth, measure_memory_bandwidth, store_bandwidth
from meshnode.resources.capacity import (
    Bandwidth,
    BandwidthSource,
    CapacitySource,
    DeviceCapacity,
    DeviceKind,
    MachineCapacity,
    capacity_changed_enough,
)
from meshnode.resources.findings import CapacityFinding, FindingCode, Severity
from meshnode.resources.probe import Probe, SystemProbe
from meshnode.resources.survey import OfferSettings, survey_machine

__all__ = [
    "Bandwidth",
    "BandwidthSource",
    "CapacityFinding",
    "CapacitySource",
    "DeviceCapacity",
    "DeviceKind",
    "FindingCode",
    "MachineCapacity",
    "OfferSettings",
    "Probe",
    "Severity",
    "SystemProbe",
    "capacity_changed_enough",
    "load_bandwidth",
    "measure_memory_bandwidth",
    "store_bandwidth",
    "survey_machine",
]
