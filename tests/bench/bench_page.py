"""The live page and the control interface: what they weigh, how quick they are, what they cost the daemon."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import msgspec
import psutil
from driving_browser import Browser, Tab, browser_path
from fixed_answers import FixedAnswers
from large_views import an_uneven_mesh
from making_nodes import Nodes, RunningNode

from meshnode.cli.client import ControlClient
from meshnode.control.app import control_app
from meshnode.control.overview import overview_of
from meshnode.control.page_app import page_files
from meshnode.control.place import bind
from meshnode.control.ring import EventRing
from meshnode.control.server import ControlServer
from meshnode.control.shapes import summary_of

NODES = 64
ASKED = 50
STORM_S = float(os.environ.get("MESHNODE_BENCH_STORM_S", "10"))
STORM_PER_S = 1_000
WATCHED_S = 20.0
JOINS = 5


def main() -> None:
    """Everything below."""
    weight()
    with tempfile.TemporaryDirectory() as root:
        answers(Path(root))
    if browser_path() is None:
        print("   no chromium on PATH: what the page costs and how quick it is was not measured")
        return
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as sockets:
        nodes = Nodes(Path(root), Path(sockets))
        try:
            in_browser(nodes, Path(root))
        finally:
            nodes.end()


def weight() -> None:
    """The page's own bytes."""
    files = page_files()
    total = sum(map(len, files.values()))
    print(
        f"   page: {len(files)} files, {total / 1e3:.1f} KB, the largest {max(map(len, files.values())) / 1e3:.1f} KB"
    )


class _Mesh(FixedAnswers):
    def status(self) -> dict[str, Any]:
        return {**self.told, "mesh": summary_of(self.seen)}


def answers(root: Path) -> None:
    """Answers of a node that sees 64, over its socket; then a storm of events and a reader."""
    surface, ring = _Mesh(), EventRing()
    surface.seen = an_uneven_mesh(NODES)
    with anyio.from_thread.start_blocking_portal() as portal:

        async def made() -> ControlServer:
            return ControlServer(control_app(surface, ring), bind(root / "s", configured=True))

        server = portal.call(made)
        ended = portal.start_task_soon(server.serve)
        client = ControlClient(root / "s", root)
        for route in ("/v1/status", "/v1/peers", "/v1/overview"):
            times_ms = sorted(_timed_ms(lambda route=route: client.get(route)) for _ in range(ASKED))  # type: ignore[misc]
            print(
                f"   {route} of {NODES} nodes: median {statistics.median(times_ms):.1f} ms, worst {times_ms[-1]:.1f} ms"
            )
        parts = {name: len(msgspec.json.encode(part)) for name, part in overview_of(surface).items()}
        whole, rtt = sum(parts.values()) / 1e3, parts["rtt"] / 1e3
        print(f"   whole picture of {NODES} nodes: {whole:.1f} KB, of it RTT {rtt:.1f} KB")
        _storm(portal, ring, client)
        portal.call(ring.close)
        portal.call(server.quit)
        ended.result(timeout=10)


def _storm(portal: anyio.from_thread.BlockingPortal, ring: EventRing, client: ControlClient) -> None:
    read = {"events": 0, "missed": 0}

    def follow() -> None:
        for event in client.events("/v1/events"):
            read["missed" if event["event"] == "stream.missed" else "events"] += int(event.get("count", 1))

    async def blow() -> float:
        slowest_s, due_s = 0.0, anyio.current_time()
        for number in range(int(STORM_S * STORM_PER_S)):
            record = {"timestamp": "2026-01-01T00:00:00.000Z", "level": "info", "event": "peer.updated", "n": number}
            ring.add({**record, "peer": "x" * 52})
            due_s += 1 / STORM_PER_S
            await anyio.sleep(max(0.0, due_s - anyio.current_time()))
            slowest_s = max(slowest_s, anyio.current_time() - due_s)
        return slowest_s

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    before = psutil.Process().memory_info().rss
    slowest_s = portal.call(blow)
    while read["events"] + read["missed"] < int(STORM_S * STORM_PER_S):
        time.sleep(0.01)
    grown = psutil.Process().memory_info().rss - before
    print(
        f"   {STORM_PER_S} events/s for {STORM_S:g} s: {read['events']} read, {read['missed']} missed, "
        f"the loop at most {slowest_s * 1e3:.0f} ms late, {grown / 1e6:+.1f} MB (the ring fills)"
    )


def in_browser(nodes: Nodes, root: Path) -> None:
    """A real mesh of four with the page open: from event to screen, requests, CPU."""
    attic = nodes.start("attic", "--declare-usable", "80GB", "--model", "qwen3-coder-480b-a35b-q4_k_xl")
    token = attic.invite("--uses", "50")
    for name in ("study", "loft", "sofa"):
        nodes.start(name, token=token)
    without = _cpu_share(attic)
    with Browser(root / "profile") as browser:
        tab = browser.open(attic.json("ui", "--no-open")["url"])
        tab.wait("document.querySelectorAll('#nodes tbody tr').length >= 4")
        print(f"   first look: {len(tab.requests)} requests, {tab.received_bytes / 1e3:.1f} KB")
        print(f"   daemon CPU: {without:.2%} of a core without the page, {_cpu_share(attic):.2%} with it open")
        delays_ms = [_join_to_screen_ms(nodes, attic, tab, token, number) for number in range(JOINS)]
        print(f"   from event to page: median {statistics.median(delays_ms):.0f} ms, worst {max(delays_ms):.0f} ms")


def _join_to_screen_ms(nodes: Nodes, attic: RunningNode, tab: Tab, token: str, number: int) -> float:
    """From the event's own time to its row on the page, both by this machine's clock."""
    name = f"new{number}"
    tab.run(
        f"""{{ const table = document.querySelector('#events');
        const watch = new MutationObserver(() => {{
            const rows = [...table.querySelectorAll('tbody th')].map((row) => row.textContent);
            if (!rows.some((row) => row.startsWith('peer.joined') && row.includes('{name}'))) return;
            window.{name} = Date.now();
            watch.disconnect();
        }});
        watch.observe(table, {{ childList: true, subtree: true }}); }}"""
    )
    node = nodes.start(name, token=token)
    joined = attic.wait_event("peer.joined", lambda event: event["peer"] == node.node)
    shown_ms = float(tab.wait(f"window.{name}"))
    return shown_ms - _unix_ms(str(joined["timestamp"]))


def _unix_ms(stamp: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp() * 1e3


def _cpu_share(node: RunningNode) -> float:
    process = psutil.Process(node.pid)
    before = process.cpu_times()
    time.sleep(WATCHED_S)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / WATCHED_S


def _timed_ms(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1e3
