"""A split's life as an OpenTelemetry trace: waiting, planning, loading, serving, and how it ended.

What lives here: `SplitTraces`, which turns the daemon's own events into spans, and `traced`, which sends them to a
collector. What does not: the events (`meshnode.events`), whose times the spans take. Needs the extra `meshnode[otel]`;
nothing of it is imported where `otlp_endpoint` is not set.

One trace per try to run a model, from the first `split.waiting` (or the plan of a node that holds it alone) to the
shortfall, the missed quorum, the plan that only was a plan, or the withdrawal:

    split
      wait    split.waiting .. split.ready, split.quorum_failed
      plan    split.ready .. split.planned, split.shortfall
      load    split.planned .. split.serving, split.load_failed
      serve   split.serving .. split.replanned, split.withdrawn

What happens meanwhile (verdicts, memory checks, a dead engine) are events of the span that is open.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from meshnode import __version__
from meshnode.logs import Record
from proto.ids import NodeId

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

FLUSH_MS: Final = 2_000
"""How long the end of a node waits for a collector."""
MAX_OPEN: Final = 64
"""Models traced at once; `models` of the config holds as many."""
INSTALL: Final = "install the extra: pipx inject meshnode 'meshnode[otel]', or leave otlp_endpoint out"
_NOTED: Final = frozenset({
    "split.candidates", "split.memory_check", "split.loading", "split.reserved", "engine.died", "weights.skipped",
    "weights.fetching", "weights.fetched", "weights.rejected",
})  # fmt: skip
_HEAD: Final = frozenset({"timestamp", "level", "event"})


class TracingUnavailable(Exception):
    """Traces are asked for and can't be made: why, and what to do."""

    def __init__(self, text: str, advice: str) -> None:
        self.text = text
        self.advice = advice
        super().__init__(text)


class _Life:
    """One try to run one model: its span, and the phase that is open."""

    def __init__(self, root: Span) -> None:
        self.root = root
        self.phase: Span | None = None
        self.name = ""


class SplitTraces:
    """Makes spans with `tracer` of the records it is given, in their order."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._lives: dict[str, _Life] = {}
        self._steps: dict[str, Callable[[Record], None]] = {
            "split.waiting": self._waiting,
            "split.ready": lambda record: self._enter("plan", record),
            "split.quorum_failed": lambda record: self._fail(record, "quorum not reached"),
            "split.planned": self._planned,
            "split.shortfall": lambda record: self._fail(record, f"{record['kind']} shortfall"),
            "split.serving": lambda record: self._enter("serve", record),
            "split.load_failed": lambda record: self._leave_phase(record, str(record["reason"])),
            "split.replanned": lambda record: self._enter("load", record),
            "split.withdrawn": lambda record: self._fail(record, str(record["cause"])),
        }

    def take(self, record: Record) -> None:
        """One record of the log."""
        name = str(record["event"])
        if (step := self._steps.get(name)) is not None:
            step(record)
        elif name in _NOTED and (life := self._lives.get(str(record.get("model")))) is not None:
            (life.phase or life.root).add_event(name, _attributes(record), _at(record))

    def end(self) -> None:
        """The node stops: what is open ends now."""
        for life in self._lives.values():
            if life.phase is not None:
                life.phase.end()
            life.root.end()
        self._lives.clear()

    # --- steps ---

    def _waiting(self, record: Record) -> None:
        """Said again and again while it waits; each time is an event of the wait."""
        life = self._life(record)
        if life.name == "wait" and life.phase is not None:
            life.phase.add_event("split.waiting", _attributes(record), _at(record))
        else:
            self._enter("wait", record)

    def _planned(self, record: Record) -> None:
        """`generation` 0 is a plan that nobody carries out: its life ends with it."""
        life = self._life(record)
        life.root.set_attributes(_attributes(record))
        if record["generation"]:
            self._enter("load", record)
        else:
            self._close(record)

    def _enter(self, name: str, record: Record) -> None:
        from opentelemetry.trace import set_span_in_context

        life = self._life(record)
        self._leave_phase(record)
        context = set_span_in_context(life.root)
        life.phase = self._tracer.start_span(name, context, attributes=_attributes(record), start_time=_at(record))
        life.name = name

    def _leave_phase(self, record: Record, problem: str = "") -> None:
        life = self._life(record)
        if life.phase is not None:
            _finish(life.phase, record, problem)
            life.phase, life.name = None, ""

    def _fail(self, record: Record, problem: str) -> None:
        self._life(record).root.set_attributes(_attributes(record))
        self._leave_phase(record, problem)
        self._close(record, problem)

    def _close(self, record: Record, problem: str = "") -> None:
        self._leave_phase(record)
        _finish(self._lives.pop(str(record["model"])).root, record, problem)

    def _life(self, record: Record) -> _Life:
        model = str(record["model"])
        if model not in self._lives:
            if len(self._lives) >= MAX_OPEN:
                self._lives.pop(next(iter(self._lives))).root.end()
            # Each try is a trace of its own, whatever context this process runs in.
            from opentelemetry.context import Context

            attributes = {"meshnode.model": model}
            root = self._tracer.start_span("split", Context(), attributes=attributes, start_time=_at(record))
            self._lives[model] = _Life(root)
        return self._lives[model]


@contextmanager
def traced(endpoint: str | None, node: NodeId, name: str, listen: Callable[[Callable[[Record], None]], None]) -> (
    Iterator[None]
):  # fmt: skip
    """Sends the traces of this node's splits to the OTLP collector at `endpoint` (an HTTP URL) until the block ends;
    nothing where it is None. Raises `TracingUnavailable`."""
    if endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnavailable(f"otlp_endpoint is set, but {error.name} is not installed", INSTALL) from error
    about = {
        "service.name": "meshnode", "service.version": __version__,
        "service.instance.id": node, "meshnode.node.name": name,
    }  # fmt: skip
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=FLUSH_MS / 1000)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    traces = SplitTraces(provider.get_tracer("meshnode", __version__))
    listen(traces.take)
    try:
        yield
    finally:
        traces.end()
        provider.force_flush(FLUSH_MS)
        provider.shutdown()


def traces_url(endpoint: str) -> str:
    """Where traces go at a collector: `/v1/traces` below a URL that names no path of its own (OTLP specification)."""
    parts = urllib.parse.urlsplit(endpoint)
    return endpoint.rstrip("/") + "/v1/traces" if parts.path in ("", "/") else endpoint


def _finish(span: Span, record: Record, problem: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    if problem:
        span.set_status(Status(StatusCode.ERROR, problem[:200]))
    span.end(_at(record))


def _attributes(record: Record) -> dict[str, Any]:
    """The event's fields as attributes: scalars and lists of texts, without what is unknown."""
    return {
        f"meshnode.{name}": [str(each) for each in value] if isinstance(value, list | tuple) else value
        for name, value in record.items()
        if name not in _HEAD and value is not None
    }


def _at(record: Record) -> int:
    """The record's time in Unix nanoseconds."""
    return round(datetime.fromisoformat(str(record["timestamp"])).timestamp() * 1000) * 1_000_000
