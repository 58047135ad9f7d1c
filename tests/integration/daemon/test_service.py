"""What a service manager does to a node: readiness, watchdog, reload. The manager's socket is a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from making_nodes import MESHNODE, Nodes, environment


def test_reload_takes_over_what_can_change_and_tells_the_rest(nodes: Nodes, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('max_memory = "1GB"\n')
    options = ("--config", str(file))
    attic = nodes.start("attic", *options)
    study = nodes.start("study", token=attic.invite())
    node = attic.node
    study.wait_event("peer.updated", lambda event: event["peer"] == node and event["part"] == "offer")
    profile = "qwen3-32b-q4_k_m"
    file.write_text(
        f'max_memory = "2GB"\nwilling = "when_needed"\nmax_links = 9\nquorum = 3\nmodels = ["{profile}"]\n'
        'log_level = "info"\n'
    )
    os.kill(attic.pid, signal.SIGHUP)
    told = attic.wait_event("config.reloaded")
    # The tests' own --log-level stays above the file.
    assert told["changed"] == [
        "max_memory: 1000000000 -> 2000000000", "willing: always -> when_needed", f"models: [] -> [{profile}]",
    ]  # fmt: skip
    assert told["later"] == ["quorum: 2 -> 3"]
    assert told["needs_restart"] == ["max_links: 64 -> 9"]
    deadline = time.monotonic() + 60
    while (shown := study.peer(node)) is None or shown["offer"]["usable_bytes"] != 1_800_000_000:
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    assert shown["offer"]["willingness"] == "when_needed"
    attic.wait_event("model.indexed")
    attic.wait_event("split.waiting")
    file.write_text('max_memory = "many"\n')
    os.kill(attic.pid, signal.SIGHUP)
    wrong = attic.wait_event("config.invalid")
    assert (wrong["key"], wrong["found"], wrong["level"]) == ("max_memory", "many", "error")
    assert wrong["expected"].endswith("the old configuration stays in force")
    file.write_text('max_memory = "2GB"\nwilling = "when_needed"\nquorum = 3\n')
    os.kill(attic.pid, signal.SIGHUP)
    again = attic.wait_event("config.reloaded", after=1)
    assert (again["changed"], again["needs_restart"]) == ([f"models: [{profile}] -> []"], [])
    while attic.control().get("/v1/splits")["splits"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("watched", [True, False])
def test_manager_hears_ready_then_signs_of_life_and_the_stop(tmp_path: Path, watched: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        place = Path("/tmp") / f"mn-notify-{os.getpid()}"
        place.unlink(missing_ok=True)
        manager.bind(str(place))
        manager.settimeout(30)
        try:
            command = [*MESHNODE, "run", "--state-dir", str(tmp_path / "s"), "--listen", "127.0.0.1:0", "--stop-on-eof"]
            more = {"WATCHDOG_USEC": "200000"} if watched else {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                env=environment(NOTIFY_SOCKET=str(place), **more),
            )  # fmt: skip
            heard: list[bytes] = []
            while b"READY=1" not in heard or (watched and heard.count(b"WATCHDOG=1") < 4):
                heard.append(manager.recv(100))
            process.send_signal(signal.SIGTERM)
            while heard[-1] != b"STOPPING=1":
                heard.append(manager.recv(100))
            assert process.wait(30) == 0
            assert (b"WATCHDOG=1" in heard) is watched
        finally:
            place.unlink(missing_ok=True)
