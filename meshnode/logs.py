"""Where every event goes: to the log, folded, redacted and rendered, and to those who listen in (`/v1/events`).

What lives here: `EventLog`, the two renderings, and the file that can be reopened. What does not: which events there
are (`meshnode.events`), folding (`meshnode.folding`), redaction (`meshnode.redaction`). Called by the daemon, which
makes one `EventLog` and hands its `emit` to every room.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from meshnode.events import Event, Level, LibraryMessage
from meshnode.folding import Folder
from meshnode.redaction import redact_fields
from meshnode.resources.sizes import amount


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Imports inside see `package` as not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how the import system spells "there is none"
    try:
        yield
    finally:
        del sys.modules[package]


# structlog imports rich where it is installed, for tracebacks that the daemon never prints so. That is 8 MB and 70 ms
# in every node, so the daemon's process is kept free of it; the other verbs import rich themselves, afterwards.
with _without("rich"):
    import structlog

Record = dict[str, object]
"""An event as it is written and streamed: `timestamp`, `level`, `event`, then its fields; plain JSON types."""

_LEVELS = {Level.DEBUG: 10, Level.INFO: 20, Level.WARNING: 30, Level.ERROR: 40}
_ID = re.compile(r"\b([a-z2-7]{10})[a-z2-7]{42}\b")


class LogFile:
    """The log's destination: stdout or a file. A destination that fails loses lines, never the daemon."""

    def __init__(self, path: Path | None) -> None:
        """Raises `OSError` where the file can't be opened, so that a wrong path is told at start."""
        self._path = path
        self._stream: TextIO = self._open()
        self.lost_lines = 0

    @property
    def is_terminal(self) -> bool:
        """True where a person watches."""
        return self._stream.isatty()

    def reopen(self) -> None:
        """Open the file anew after it was rotated away (SIGHUP). Keeps the old one where that fails."""
        if self._path is None:
            return
        try:
            fresh = self._open()
        except OSError:
            self.lost_lines += 1
            return
        self._stream.close()
        self._stream = fresh

    def write(self, text: str) -> None:
        """Write and flush. A full disk or a closed pipe is counted."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream was closed under us
            self.lost_lines += 1

    def flush(self) -> None:
        """Nothing: `write` has flushed."""

    def _open(self) -> TextIO:
        if self._path is None:
            return sys.stdout
        return os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a", encoding="utf-8")


class EventLog:
    """Takes every event of the daemon. Call from the event loop's thread only.

    `log_format` is `json`, `pretty` or `auto` (pretty on a terminal); `level` the quietest level written. Listeners get
    every record whatever its level, unfolded.
    """

    def __init__(
        self,
        output: LogFile,
        *,
        log_format: str = "auto",
        level: str = "info",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        pretty = log_format == "pretty" or (log_format == "auto" and output.is_terminal)
        self.output = output
        self._threshold = _LEVELS[Level(level)]
        self._folder = Folder()
        self._clock = clock
        self._wall_clock = wall_clock
        self._listeners: list[Callable[[Record], None]] = []
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(output),  # type: ignore[arg-type]  # needs only write and flush
            processors=_pretty_processors(colours=output.is_terminal) if pretty else _json_processors(),
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def set_level(self, level: str) -> None:
        """Write events of this level and louder from now on."""
        self._threshold = _LEVELS[Level(level)]

    def listen(self, listener: Callable[[Record], None]) -> None:
        """Call `listener` with every later record."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Report one event."""
        if self._listeners:
            record = record_of(event, self._wall_clock())
            for listener in self._listeners:
                listener(record)
        if _LEVELS[event.level] >= self._threshold:
            self._write(self._folder.admit(event, self._clock()))

    def tick(self) -> None:
        """Write the summaries that are due; the daemon calls this every few seconds."""
        self._write(self._folder.close_due(self._clock()))

    def close(self) -> None:
        """Write every summary still open."""
        self._write(self._folder.close_all(self._clock()))

    def _write(self, events: list[Event]) -> None:
        for event in events:
            record = record_of(event, self._wall_clock())
            self._logger.msg(record.pop("event"), **record)


def record_of(event: Event, at_unix_s: float) -> Record:
    """The event as it is written and streamed: figures to three digits, secrets blotted out."""
    stamp = datetime.fromtimestamp(at_unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {name: round(value, 3) if isinstance(value, float) else value for name, value in event.fields().items()}
    return {"timestamp": stamp, "level": event.level.value, "event": event.name, **redact_fields(fields)}


def _json_processors() -> list[Any]:
    return [_in_reading_order, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]


def _pretty_processors(*, colours: bool) -> list[Any]:
    shown = colours and not os.environ.get("NO_COLOR")
    return [_PrettyRenderer(structlog.dev.ConsoleRenderer(colors=shown, pad_event_to=20, sort_keys=False))]


def _in_reading_order(_logger: object, _method: str, record: MutableMapping[str, object]) -> Record:
    """structlog appends the event's name last; people and `cut` want it after the level."""
    order = ("timestamp", "level", "event")
    return {name: record[name] for name in order} | {name: record[name] for name in record if name not in order}


class _PrettyRenderer:
    """Local time of day, short ids, bytes in GB, no empty fields; texts of several lines stand below, indented."""

    def __init__(self, renderer: structlog.dev.ConsoleRenderer) -> None:
        self._renderer = renderer

    def __call__(self, logger: object, method: str, record: MutableMapping[str, object]) -> str:
        stamp = datetime.fromisoformat(str(record["timestamp"])).astimezone()
        shown = {name: _field_for_people(name, value) for name, value in record.items() if value not in (None, "", [])}
        below = {name: text for name, text in shown.items() if isinstance(text, str) and "\n" in text}
        line = {name: value for name, value in shown.items() if name not in below} | {
            "timestamp": stamp.strftime("%H:%M:%S")
        }
        pieces = [self._renderer(logger, method, line)]
        for name, text in below.items():
            pieces.append(f"    {name}:\n" + textwrap.indent(text, "      "))
        return "\n".join(pieces)


def _field_for_people(name: str, value: object) -> object:
    if isinstance(value, str):
        return _ID.sub(r"\1", value)
    if isinstance(value, list):
        return [_field_for_people(name, entry) for entry in value]
    if name.endswith("_bytes") and isinstance(value, int):
        return amount(value)
    return value


class LibraryHandler(logging.Handler):
    """Turns warnings of libraries (asyncio, aioquic, uvicorn) into `log.library` events, so that all has one shape."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        super().__init__(logging.WARNING)
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one library record on, with its exception as text."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._emit(LibraryMessage(logger=record.name, text=text[:4000]))


def catch_library_logs(emit: Callable[[Event], None]) -> None:
    """Route Python's own logging into `emit`. Once per process, by `meshnode run`."""
    logging.lastResort = None
    root = logging.getLogger()
    root.handlers[:] = [LibraryHandler(emit)]
    root.setLevel(logging.WARNING)
