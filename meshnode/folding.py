"""Folding of repeats: a flapping peer, or a stranger knocking all night, can't fill a disk.

What lives here: the rule, without a clock of its own. What does not: writing (`meshnode.logs`). Only the written log is
folded; the event stream (`/v1/events`) is bounded by its ring instead.

The rule: within a window, `PER_SUBJECT` lines of one event about one subject pass, and `PER_EVENT` lines of one event
whatever the subject. What exceeds either is counted, and the window's end brings one `log.folded` line with the count.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from meshnode.events import Event, LogFolded

WINDOW_S = 60.0
PER_SUBJECT = 6
PER_EVENT = 300
MAX_WINDOWS = 4096
"""Most subjects remembered at once; beyond it the oldest window is closed early."""

_SUBJECT_FIELDS = ("peer", "node", "subject", "model", "device", "token_id", "address", "route", "logger")


@dataclass
class _Window:
    opened_s: float
    passed: int = 0
    folded: int = 0


class Folder:
    """Decides which events are written. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()

    def admit(self, event: Event, now: float) -> list[Event]:
        """What to write for `event`: due summaries of closed windows, then the event itself unless it is folded."""
        due = self.close_due(now)
        subject = subject_of(event)
        whole = self._window((event.name, ""), now, due)
        own = self._window((event.name, subject), now, due) if subject else whole
        if own.passed >= PER_SUBJECT and subject:
            own.folded += 1
            return due
        if whole.passed >= PER_EVENT:
            whole.folded += 1
            return due
        own.passed += 1
        if own is not whole:
            whole.passed += 1
        return [*due, event]

    def close_due(self, now: float) -> list[Event]:
        """Summaries of windows that ended by `now`."""
        due: list[Event] = []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now - window.opened_s < WINDOW_S:
                break
            del self._windows[key]
            due += _summary(key, window, now)
        return due

    def close_all(self, now: float) -> list[Event]:
        """Summaries of every window, for the end of the process."""
        due = [line for key, window in self._windows.items() for line in _summary(key, window, now)]
        self._windows.clear()
        return due

    def _window(self, key: tuple[str, str], now: float, due: list[Event]) -> _Window:
        if (found := self._windows.get(key)) is not None:
            return found
        if len(self._windows) >= MAX_WINDOWS:
            oldest, window = self._windows.popitem(last=False)
            due += _summary(oldest, window, now)
        self._windows[key] = _Window(now)
        return self._windows[key]


def subject_of(event: Event) -> str:
    """Whom or what an event is about: the first of the fields that name one."""
    for name in _SUBJECT_FIELDS:
        value = getattr(event, name, None)
        if isinstance(value, str) and value:
            return value
    return ""


def _summary(key: tuple[str, str], window: _Window, now: float) -> list[Event]:
    if window.folded == 0:
        return []
    name, subject = key
    return [LogFolded(folded_event=name, subject=subject, count=window.folded, over_s=round(now - window.opened_s, 1))]
