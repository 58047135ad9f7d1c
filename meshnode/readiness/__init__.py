"""Who can take part in a split, and when to stop waiting: rules, settling, the participant snapshot.

Start at `wait_for_split_participants`. Rules and waiter are pure: no I/O, no clock.
"""

from meshnode.readiness.reasons import REASONS, TABLE, Makes, Reason, ReasonCode, reasons_page
from meshnode.readiness.request import Eligibility, InvalidRequest, Purpose, SettleSettings, SplitRequest
from meshnode.readiness.snapshot import Outcome, QuorumNotReached, SplitParticipantSnapshot, snapshot_now
from meshnode.readiness.verdict import Excluded, Participant, ParticipantDevice, Pending, Verdict
from meshnode.readiness.wait import LatestView, MeshFeed, wait_for_split_participants
from meshnode.readiness.waiter import AskConfirm, Failed, Finished, Measure, Waiter, WaiterEffect

__all__ = [
    "REASONS",
    "TABLE",
    "AskConfirm",
    "Eligibility",
    "Excluded",
    "Failed",
    "Finished",
    "InvalidRequest",
    "LatestView",
    "Makes",
    "Measure",
    "MeshFeed",
    "Outcome",
    "Participant",
    "ParticipantDevice",
    "Pending",
    "Purpose",
    "QuorumNotReached",
    "Reason",
    "ReasonCode",
    "SettleSettings",
    "SplitParticipantSnapshot",
    "SplitRequest",
    "Verdict",
    "Waiter",
    "WaiterEffect",
    "reasons_page",
    "snapshot_now",
    "wait_for_split_participants",
]
