"""The OpenAI-compatible interface of a node that runs no model: it says what there is, and never costs the node."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from asking_models import ModelClient
from emulated_mesh import until
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
    # `localhost` is ::1 for many clients.
    port = urlsplit(attic.json("status")["api"]).port
    with socket.socket(socket.AF_INET6) as probe:
        if probe.connect_ex(("::1", 9)) == errno.ECONNREFUSED:
            assert ModelClient(f"http://[::1]:{port}/v1").models() == []


def test_interface_with_a_key_answers_those_who_have_it(nodes: Nodes, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('api_key = "sesame-sesame-sesame"\n')
    attic = nodes.start("attic", "--config", str(config))
    client = ModelClient(str(attic.wait_event("api.listening")["address"]))
    assert client.get("/models").status == 401
    assert client.get("/models", Authorization="Bearer sesame").content["error"]["code"] == "invalid_api_key"
    assert client.get("/models", Authorization="Bearer sesame-sesame-sesame").content["data"] == []
    assert "sesame" not in attic.log.read_text()


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
        client = ModelClient(str(node.wait_event("api.listening")["address"]))
        # Its log says so a moment before its mesh is told that the model is wanted.
        until(lambda client=client: client.complete("broken", "Hello").status != 404, f"{node.name} knows the model")  # type: ignore[misc]
        answer = client.complete("broken", "Hello")
        assert (answer.status, answer.content["error"]["code"]) == (503, "not_running")
        assert "broken can't be read" in answer.error
        assert "GGUF" in answer.error
        assert int(answer.headers["retry-after"]) > 0
