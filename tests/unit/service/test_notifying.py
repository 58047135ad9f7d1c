"""What the process tells its service manager, and who holds a port."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from meshnode.service.notifying import port_holder, sd_notify, watchdog_s


def test_readiness_reaches_the_service_manager(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = tmp_path_factory.mktemp("n") / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        sd_notify("READY=1")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nonexistent/socket"])
def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    sd_notify("READY=1")


def test_holder_of_a_port_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        assert port_holder(taken.getsockname()[1], "udp").startswith(f" by process {os.getpid()} (")


def test_free_port_has_no_holder() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert port_holder(port, "udp") == ""


@pytest.mark.parametrize(
    ("period_us", "pid", "expected"),
    [
        ("30000000", None, 30.0), ("30000000", "own", 30.0), ("30000000", "1", None), ("", None, None),
        ("soon", None, None), ("0", None, None),
    ],
)  # fmt: skip
def test_watchdog_is_ours_only_where_it_names_this_process(
    monkeypatch: pytest.MonkeyPatch, period_us: str, pid: str | None, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", period_us)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_s() == expected
