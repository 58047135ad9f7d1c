"""Traces of a real node's split at a collector."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import Iterator
from queue import Queue

import pytest
from making_nodes import DEADLINE_S, Nodes
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Received = Queue[tuple[str, bytes]]


@pytest.fixture
def collector() -> Iterator[tuple[str, Received]]:
    """The address of an OTLP collector, and what it receives."""
    received: Received = Queue()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the library's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_shortfall_of_a_node_reaches_the_collector_as_a_trace(nodes: Nodes, collector: tuple[str, Received]) -> None:
    endpoint, received = collector
    wants = ("--model", "qwen3-coder-480b-a35b-q4_k_xl", "--quorum", "1", "--declare-usable", "80GB")
    quick = ("--dwell-s", "0.1", "--first-quorum-window-s", "0.1")
    attic = nodes.start("attic", *wants, *quick, "--otlp-endpoint", endpoint)
    attic.wait_event("split.shortfall")
    assert attic.stop() == 0
    path, body = received.get(timeout=DEADLINE_S)
    assert path == "/v1/traces"
    request = ExportTraceServiceRequest.FromString(body)
    spans = [span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]
    assert {"wait", "plan", "split"} <= {span.name for span in spans}
    assert {span.name for span in spans if not span.parent_span_id} == {"split"}
    about = {pair.key: pair.value.string_value for pair in request.resource_spans[0].resource.attributes}
    assert (about["service.name"], about["service.instance.id"]) == ("meshnode", attic.node)


def test_collector_that_is_not_there_keeps_no_node_from_its_work(nodes: Nodes) -> None:
    attic = nodes.start("attic", "--otlp-endpoint", "http://127.0.0.1:9")
    assert attic.json("status")["name"] == "attic"
    assert attic.stop() == 0


def test_without_the_extra_the_node_says_what_to_install(nodes: Nodes) -> None:
    without = "import sys; sys.modules['opentelemetry'] = None; from meshnode.cli import main; main()"
    attic = nodes.start(
        "attic", "--otlp-endpoint", "http://127.0.0.1:9", wait=False, program=(sys.executable, "-c", without)
    )
    assert attic.process.wait(DEADLINE_S) == 1
    assert attic.process.stderr is not None
    text = attic.process.stderr.read()
    assert "otlp_endpoint is set, but opentelemetry" in text
    assert "meshnode[otel]" in text
