"""Pure planning: what a model needs, what a mesh can hold, where each layer goes, and what would help if it does not
fit.

No I/O, no clock, no randomness of its own; imports neither `meshnode` nor `proto`. Start at `plan_split`.
"""

from planner.constraints import Constraints, Exclusion, Objective, TargetPolicy
from planner.dispatch import plan_split
from planner.engine import CHAIN, LLAMA_CPP_RPC, EngineProfile
from planner.errors import CapacityShortfall, InvalidPlanInput
from planner.links import Link, LinkMatrix
from planner.model import LayerSpec, ModelSpec
from planner.nodes import DeviceSpec, NodeSpec, Willingness
from planner.plan import HopPlan, SplitPlan, StagePlan
from planner.replanning import Move, Replanned, replan
from planner.shortfall import Remedy, ShortfallReport
from planner.transfers import Transfer
from planner.workload import CacheType, KvMode, Workload

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
