"""When members count as settled: a quorum, nothing changed for the dwell time, and the observation window passed.

What lives here: `Settling`. What does not: who is a member (the verdicts) and the deadline (the waiter).

Why a dwell and a window, as Mesh-LLM has them: a two-node quorum that plans at once starves a third that arrives a
second later. What restarts the dwell: a participant more or less, a restarted one, or usable bytes of a device that
moved by more than `drift` from what they were when the dwell began. RTT, cache and host memory restart nothing; neither
do nodes that are no participants, so that clients coming and going hold nobody up. The window counts from the moment
the quorum was reached; a quorum that is lost and reached again begins a new one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from meshnode.readiness.request import SettleSettings
from meshnode.readiness.verdict import Participant
from proto.ids import BootId, NodeId

_Member = tuple[BootId | None, dict[str, int]]
Members = dict[NodeId, _Member]
"""Boot id and usable bytes by device, of each."""


class Settling:
    """Remembers since when the participants are the same; times are monotonic seconds."""

    def __init__(self, settings: SettleSettings) -> None:
        self._settings = settings
        self._members: Members = {}
        self._stable_since_s = -math.inf
        self._quorum_since_s: float | None = None

    def note(self, participants: Iterable[Participant], now: float) -> None:
        """These take part now."""
        members = members_of(participants)
        if members_changed(self._members, members, self._settings.drift):
            self._members = members
            self._stable_since_s = now
        if len(members) < self._settings.quorum:
            self._quorum_since_s = None
        elif self._quorum_since_s is None:
            self._quorum_since_s = now

    @property
    def has_quorum(self) -> bool:
        """Whether enough take part."""
        return self._quorum_since_s is not None

    @property
    def due_s(self) -> float:
        """When they have settled if nothing changes; infinity below the quorum."""
        if self._quorum_since_s is None:
            return math.inf
        dwelt_s = self._stable_since_s + self._settings.dwell_s
        return max(dwelt_s, self._quorum_since_s + self._settings.first_quorum_window_s)


def members_of(participants: Iterable[Participant]) -> Members:
    """What identifies the members and their capacity: boot id and usable bytes by device."""
    return {
        participant.node: (participant.boot_id, {device.id: device.usable_bytes for device in participant.devices})
        for participant in participants
    }


def members_changed(old: Members, new: Members, drift: float) -> bool:
    """Whether members or capacities differ by more than drifting figures do."""
    if old.keys() != new.keys():
        return True
    return any(_member_changed(old[node], new[node], drift) for node in new)


def _member_changed(old: _Member, new: _Member, drift: float) -> bool:
    if old[0] != new[0] or old[1].keys() != new[1].keys():
        return True
    return any(_moved(old[1][device], new[1][device], drift) for device in new[1])


def _moved(old: int, new: int, drift: float) -> bool:
    """More than `drift` of the old figure; from or to nothing always counts."""
    return old != new and (abs(new - old) > drift * old or old == 0 or new == 0)
