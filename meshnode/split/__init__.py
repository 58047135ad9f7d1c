"""One model's split: who coordinates, planning over a snapshot, fences, reservations, and its whole life.

`plan_now` and `wait_and_plan` only ask; `SplitDesk` carries splits out. Machines here are sans-IO.
"""

from meshnode.readiness.request import HOST_MEMORY
from meshnode.split.actions import Gate, PlanKind
from meshnode.split.coordinator import Chosen, NoSource, NotWanted, choose_coordinator
from meshnode.split.fence import FenceFile, Fences
from meshnode.split.inquiring import plan_now, wait_and_plan
from meshnode.split.phase import Phase, PursuitSettings
from meshnode.split.planning import PlanAsked, PlanRefused, PlanResult
from meshnode.split.pursuit import Pursuit
from meshnode.split.reservation import Held, Reservations
from meshnode.split.runner import SPLIT_MESSAGES, DeskPorts, SplitDesk, StageRunner

__all__ = [
    "HOST_MEMORY",
    "SPLIT_MESSAGES",
    "Chosen",
    "DeskPorts",
    "FenceFile",
    "Fences",
    "Gate",
    "Held",
    "NoSource",
    "NotWanted",
    "Phase",
    "PlanAsked",
    "PlanKind",
    "PlanRefused",
    "PlanResult",
    "Pursuit",
    "PursuitSettings",
    "Reservations",
    "SplitDesk",
    "StageRunner",
    "choose_coordinator",
    "plan_now",
    "wait_and_plan",
]
