"""Pure planning: what a model needs, what a mesh can hold, where each layer goes, and what would help if it does not
fit.

No I/O, no clock, no randomness of its own; imports neither `meshnode` nor `proto`. Start at `plan_split`.
"""

from typing import TYPE_CHECKING

from planner.constraints import Constraints, Exclusion, Objective, TargetPolicy
from planner.engine import CHAIN, LLAMA_CPP_RPC, EngineProfile
from planner.errors import CapacityShortfall, InvalidPlanInput
from planner.links import Link, LinkMatrix
from planner.model import LayerSpec, ModelSpec
from planner.nodes import DeviceSpec, NodeSpec, Willingness
from planner.plan import HopPlan, SplitPlan, StagePlan
from planner.shortfall import Remedy, ShortfallReport
from planner.transfers import Transfer
from planner.workload import CacheType, KvMode, Workload

if TYPE_CHECKING:
    from planner.dispatch import plan_split
    from planner.replanning import Move, Replanned, replan

__all__ = [
    "CHAIN",
    "LLAMA_CPP_RPC",
    "CacheType",
    "CapacityShortfall",
    "Constraints",
    "DeviceSpec",
    "EngineProfile",
    "Exclusion",
    "HopPlan",
    "InvalidPlanInput",
    "KvMode",
    "LayerSpec",
    "Link",
    "LinkMatrix",
    "ModelSpec",
    "Move",
    "NodeSpec",
    "Objective",
    "Remedy",
    "Replanned",
    "ShortfallReport",
    "SplitPlan",
    "StagePlan",
    "TargetPolicy",
    "Transfer",
    "Willingness",
    "Workload",
    "plan_split",
    "replan",
]

_SEARCHING = {"plan_split": "dispatch", "Move": "replanning", "Replanned": "replanning", "replan": "replanning"}


def __getattr__(name: str) -> object:
    """What searches is imported when it is first asked for: a daemon at rest needs the shapes alone (PEP 562)."""
    if name not in _SEARCHING:
        raise AttributeError(f"module 'planner' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"planner.{_SEARCHING[name]}"), name)
