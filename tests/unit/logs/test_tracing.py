"""A split's life as spans, kept in memory by OpenTelemetry's own exporter."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from meshnode.events import CATALOGUE
from meshnode.logs import record_of
from meshnode.tracing import MAX_OPEN, SplitTraces, traces_url

VALUES: dict[str, Any] = {
    "str": "x", "int": 1, "float": 1.5, "bool": True, "tuple[str, ...]": ("a", "b"),
    "str | None": None, "int | None": None, "float | None": None,
}  # fmt: skip


class Traced:
    """`say` an event by its name, one second after the one before; `spans` are those that have ended, by name."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traces = SplitTraces(provider.get_tracer("test"))
        self._clock = itertools.count(1_000)

    def say(self, name: str, **given: Any) -> None:
        """Emit one event of the catalogue."""
        kind = CATALOGUE[name]
        values = {field.name: VALUES[str(field.type)] for field in fields(kind)} | {"model": "m"} | given
        self.traces.take(record_of(kind(**values), next(self._clock)))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The newest of each name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    @property
    def order(self) -> list[str]:
        """Names in the order in which they ended."""
        return [span.name for span in self.exporter.get_finished_spans()]


@pytest.fixture
def traced() -> Iterator[Traced]:
    """A recorder of traces."""
    made = Traced()
    yield made
    made.traces.end()


def seconds(span: ReadableSpan) -> float:
    """How long a span lasted."""
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_split_that_runs_is_a_trace_of_wait_plan_load_and_serve(traced: Traced) -> None:
    for name in ("split.waiting", "split.candidates", "split.waiting", "split.ready"):
        traced.say(name)
    traced.say("split.planned", generation=3, stages=("a:[0,4)",))
    for name in ("split.loading", "split.memory_check", "split.serving"):
        traced.say(name, generation=3)
    assert traced.order == ["wait", "plan", "load"]
    traced.say("split.withdrawn", generation=3, cause="the node stops")
    assert traced.order == ["wait", "plan", "load", "serve", "split"]
    root = traced.spans["split"]
    assert [seconds(traced.spans[name]) for name in ("wait", "plan", "load", "serve", "split")] == [3, 1, 3, 1, 8]
    assert root.context is not None
    assert {span.parent.span_id for span in traced.spans.values() if span.parent} == {root.context.span_id}
    assert root.attributes is not None
    assert root.attributes["meshnode.model"] == "m"
    assert root.attributes["meshnode.stages"] == ("a:[0,4)",)
    assert [event.name for event in traced.spans["load"].events] == ["split.loading", "split.memory_check"]


def test_shortfall_ends_the_trace_as_an_error_with_its_figures(traced: Traced) -> None:
    for name in ("split.waiting", "split.ready"):
        traced.say(name)
    traced.say("split.shortfall", kind="aggregate", short_by_bytes=147_500_000_000)
    root = traced.spans["split"]
    assert root.status.status_code is StatusCode.ERROR
    assert root.status.description == "aggregate shortfall"
    assert root.attributes is not None
    assert root.attributes["meshnode.short_by_bytes"] == 147_500_000_000
    assert traced.order == ["wait", "plan", "split"]


def test_missed_quorum_ends_the_wait_and_the_trace(traced: Traced) -> None:
    traced.say("split.waiting")
    traced.say("split.quorum_failed")
    assert traced.order == ["wait", "split"]
    assert traced.spans["wait"].status.status_code is StatusCode.ERROR


def test_next_try_is_a_trace_of_its_own(traced: Traced) -> None:
    for _ in range(2):
        traced.say("split.waiting")
        traced.say("split.ready")
        traced.say("split.planned", generation=0)
    traces = {span.context.trace_id for span in traced.exporter.get_finished_spans() if span.context is not None}
    assert len(traces) == 2
    assert traced.order == ["wait", "plan", "split"] * 2


def test_replanned_split_loads_and_serves_again_in_the_same_trace(traced: Traced) -> None:
    traced.say("split.planned", generation=1)
    traced.say("split.serving", generation=1)
    traced.say("split.replanned", generation=2)
    traced.say("split.load_failed", generation=2, reason="out of memory")
    assert traced.spans["load"].status.description == "out of memory"
    traced.say("split.replanned", generation=3)
    traced.say("split.serving", generation=3)
    traced.traces.end()
    assert traced.order == ["load", "serve", "load", "load", "serve", "split"]
    assert len({span.context.trace_id for span in traced.exporter.get_finished_spans() if span.context}) == 1


def test_models_do_not_mix_and_what_belongs_to_none_is_left_out(traced: Traced) -> None:
    traced.say("split.waiting", model="one")
    traced.say("split.waiting", model="two")
    traced.say("split.memory_check", model="three")
    traced.say("split.quorum_failed", model="two")
    assert [span.attributes["meshnode.model"] for span in traced.exporter.get_finished_spans() if span.attributes] == [
        "two", "two",
    ]  # fmt: skip


def test_open_traces_are_bounded(traced: Traced) -> None:
    for number in range(MAX_OPEN + 5):
        traced.say("split.waiting", model=f"m{number}")
    assert traced.order == ["split"] * 5


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith(("split.", "engine.", "weights."))])
def test_every_event_of_a_split_is_taken_as_it_comes(traced: Traced, name: str) -> None:
    """In no order that was thought of."""
    if "model" in CATALOGUE[name].__dataclass_fields__:
        traced.say(name)
        traced.say("split.waiting")
        traced.say(name)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://localhost:4318", "http://localhost:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("https://collector/otlp/v1/traces", "https://collector/otlp/v1/traces"),
    ],
)
def test_collectors_own_path_is_kept(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url
