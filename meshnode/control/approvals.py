"""Approvals as the control interface offers them, over this node's admission.

What lives here: `Approvals`: requests in JSON, answers in JSON. What does not: the rules
(`meshnode.admission.approving`). Part of the daemon's `ControlSurface`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from meshnode.admission import Admission, AdmissionError
from meshnode.admission.approving import MAX_OPEN_S, ApprovalRequest
from meshnode.control.shapes import Json
from meshnode.control.surface import ControlError
from meshnode.events import ApprovalDecided, ApprovalOpened, Event
from meshnode.transport.clock import boottime_s
from proto.approval import WORD_LIST, WORDS
from proto.parts import Role


class Approvals:
    """`clock` is the one that the gate's answers go by."""

    def __init__(
        self, admission: Admission, *, emit: Callable[[Event], None], clock: Callable[[], float] = boottime_s
    ) -> None:
        self._admission = admission
        self._desk = admission.desk
        self._emit = emit
        self._clock = clock

    def shown(self) -> Json:
        """How long the desk is open, and who has words to compare."""
        now_s = self._clock()
        requests = [_request_json(request, now_s) for request in self._desk.requests(now_s)]
        return {"open_for_s": round(self._desk.open_for_s(now_s), 1), "requests": requests}

    def act(self, request: Json) -> Json:
        """`{"open_s", "role"}` opens the desk, `{"open_s": 0}` closes it, `{"words", "accept"}` decides."""
        if "words" in request:
            return self._decide(request)
        open_s, role = request.get("open_s"), request.get("role", Role.WORKER.value)
        if isinstance(open_s, bool) or not isinstance(open_s, int | float) or not 0 <= open_s <= MAX_OPEN_S:
            raise ControlError.bad_field("open_s", open_s, f"seconds from 0 (close) to {MAX_OPEN_S:.0f}")
        if role not in set(Role):
            raise ControlError.bad_field("role", role, "worker or client")
        if open_s == 0:
            self._desk.close()
        else:
            self._open(float(open_s), Role(role))
        return self.shown()

    def _open(self, open_s: float, role: Role) -> None:
        try:
            self._admission.require_may_invite(int(time.time()))
        except AdmissionError as error:
            raise ControlError(409, "refused", error.text, advice=error.advice) from error
        was_open = self._desk.is_open(self._clock())
        self._desk.open(self._clock(), open_s, role)
        if not was_open:
            self._emit(ApprovalOpened(for_s=open_s, role=role.value))

    def _decide(self, request: Json) -> Json:
        words, accept = request["words"], request.get("accept")
        known = set(WORD_LIST)
        if not isinstance(words, list) or len(words) != WORDS or any(word not in known for word in words):
            raise ControlError.bad_field("words", words, "the six words that the other screen shows")
        if not isinstance(accept, bool):
            raise ControlError.bad_field("accept", accept, "true or false")
        now_s = self._clock()
        decided = self._desk.decide(words, accept, now_s)
        if decided is None:
            message = "no node that asks has these words"
            advice = "if its screen does show them, somebody is in between, or it asks another member"
            raise ControlError(404, "unknown_words", message, advice=advice)
        self._emit(ApprovalDecided(decided.node, decided.address, decided.role.value, accept))
        return _request_json(decided, now_s)


def _request_json(request: ApprovalRequest, now_s: float) -> Json:
    return {
        "node": request.node,
        "address": request.address,
        "role": request.role.value,
        "words": list(request.words),
        "asked_s_ago": round(now_s - request.asked_at_s, 1),
        "accepted": request.accepted,
    }
