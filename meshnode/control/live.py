"""The whole picture, followed: what changed, as soon as it did, to any number of readers at the price of one.

What lives here: `Live`, behind `/v1/live` and the page. What does not: the picture (`meshnode.control.overview`) and
the bounds on readers (`meshnode.control.streams`).

The stream is server-sent events (WHATWG HTML, section 9.2) of three kinds:

    hello   {"incarnation", "uptime_s", "newest"}   first; another incarnation means that the daemon was restarted
    part    {"part": NAME, "value": ...}            a part of the picture that differs from what this reader has
    events  {"events": [...], "missed": N}          what happened since, at most `MOST_EVENTS` at a time

A comment every `REFRESH_S` says that the daemon lives. Every change that matters to the picture has an event, so the
event ring is what wakes a reader; RTT figures, which drift without one, are looked at every `REFRESH_S`. Events of one
moment are gathered, the picture is made at most once per `PACE_S`, and a picture that takes long to make is made more
seldom: the mesh's own work comes first.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio
import msgspec

from meshnode.control.overview import overview_of
from meshnode.control.ring import Entry, EventRing, Missed, number_of
from meshnode.control.shapes import Json
from meshnode.control.surface import ControlSurface

GATHER_S: Final = 0.05
PACE_S: Final = 0.25
SHARE: Final = 10
"""At least so many times as long as a picture took to make passes before the next: a tenth of the loop at most."""
REFRESH_S: Final = 2.0
MOST_EVENTS: Final = 200
"""Sent at once, and the past that a new reader gets; a storm's older ones are counted instead."""


class Live:
    """One picture for all readers. `clock` is monotonic seconds."""

    def __init__(self, surface: ControlSurface, ring: EventRing, clock: Callable[[], float] = time.monotonic) -> None:
        self._surface = surface
        self._ring = ring
        self._clock = clock
        self._parts: dict[str, bytes] = {}
        self._made_at = 0
        self._made_s = float("-inf")
        self._took_s = 0.0

    async def follow(self, after: int = 0) -> AsyncIterator[bytes]:
        """The stream, with the events after number `after`."""
        yield self._hello()
        sent: dict[str, bytes] = {}
        number = after
        while True:
            # Of a node that is leaving only its last words are news; its picture is that of nothing.
            parts, made_at = ({}, self._made_at) if self._ring.closed else self._picture()
            fresh = [name for name, part in parts.items() if sent.get(name) != part]
            frames = [_frame("part", b'{"part":"%s","value":%s}' % (name.encode(), parts[name])) for name in fresh]
            sent |= {name: parts[name] for name in fresh}
            if number > self._ring.newest:
                number = 0  # the reader followed an earlier run of the daemon
            if number < self._ring.newest:
                batch, number = self._events(number)
                frames.append(batch)
            yield b"".join(frames) or b": still here\n\n"
            if self._ring.closed:
                return
            await self._stir(made_at)

    async def _stir(self, made_at: int) -> None:
        """Until something happened after the picture made at event `made_at` and it is time to look, or `REFRESH_S`
        have passed."""
        with anyio.move_on_after(REFRESH_S):
            await self._ring.wait_beyond(made_at)
            await anyio.sleep(GATHER_S)
        if not self._ring.closed:
            await anyio.sleep(max(0.0, self._made_s + self._pause_s - self._clock()))

    @property
    def _pause_s(self) -> float:
        return max(PACE_S, SHARE * self._took_s)

    def _hello(self) -> bytes:
        status = self._surface.status()
        said = {name: status.get(name) for name in ("incarnation", "uptime_s")} | {"newest": self._ring.newest}
        return _frame("hello", msgspec.json.encode(said))

    def _picture(self) -> tuple[dict[str, bytes], int]:
        """Every part, encoded, and the event up to which it is true; one making serves all readers of the moment."""
        started_s = self._clock()
        age_s = started_s - self._made_s
        if age_s >= self._pause_s and (age_s >= REFRESH_S or self._ring.newest > self._made_at):
            parts = overview_of(self._surface)
            self._parts = {name: msgspec.json.encode(part) for name, part in parts.items()}
            self._made_at = self._ring.newest
            self._made_s = self._clock()
            self._took_s = self._made_s - started_s
        return self._parts, self._made_at

    def _events(self, after: int) -> tuple[bytes, int]:
        """The newest events after `after`, those left out counted, and where the reader stands then."""
        newest = self._ring.newest
        start = max(after, newest - MOST_EVENTS)
        found = self._ring.since(start, at_most=MOST_EVENTS)
        missed = start - after if after else 0
        missed += sum(entry.count for entry in found if isinstance(entry, Missed))
        entries: list[Json] = [{"id": each.number, **each.record} for each in found if isinstance(each, Entry)]
        body = msgspec.json.encode({"events": entries, "missed": missed})
        return _frame("events", body), number_of(found[-1]) if found else newest


def _frame(kind: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
