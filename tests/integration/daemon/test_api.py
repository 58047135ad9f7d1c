"""The OpenAI-compatible interface of a node that runs no model: it says what there is, and never costs the node."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from asking_models import ModelClient
from making_nodes import Nodes


def test_interface_of_a_node_without_models_says_so(nodes: Nodes) -> None:
    attic = nodes.start("attic")
    client = ModelClient(str(attic.wait_event("api.listening")["address"]))
    assert client.models() == []
    answer = client.complete("gemma3-270m", "Hello")
    assert (answer.status, answer.content["error"]["code"]) == (404, "model_not_found")
    assert "none is running now" in answer.error
    assert client.get("/embeddings").content["error"]["code"] == "not_found"
    assert client.post("/completions", {"prompt": "Hello"}).content["error"]["param"] == "model"
    assert attic.json("status")["api"] in attic.verb("status")


def test_port_that_is_taken_costs_the_interface_and_not_the_node(nodes: Nodes) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        attic = nodes.start("attic", "--api-port", str(port))
        told = attic.wait_event("api.unavailable")
        assert told["address"] == f"127.0.0.1:{port}"
        assert f"process {os.getpid()}" in told["reason"]
        assert attic.json("status")["api"] == ""
        assert f"no address: 127.0.0.1:{port}" in attic.verb("status")
        found = [each for each in attic.json("doctor", code=2)["findings"] if each["subject"] == "api_port"]
        assert [each["grade"] for each in found] == ["error"]


def test_model_that_can_not_be_read_is_told_to_clients_of_every_node_with_what_is_wrong(
    nodes: Nodes, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGML" + bytes(100))
    attic, sofa = nodes.mesh("attic", "sofa", options=("--model", str(broken)))
    for node in (attic, sofa):
        node.wait_event("model.unreadable")
        answer = ModelClient(str(node.wait_event("api.listening")["address"])).complete("broken", "Hello")
        assert (answer.status, answer.content["error"]["code"]) == (503, "not_running")
        assert "broken can't be read" in answer.error
        assert "GGUF" in answer.error
        assert int(answer.headers["retry-after"]) > 0
