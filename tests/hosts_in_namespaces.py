"""Several hosts on one machine: network namespaces with their own addresses, joined by a switch that is one too.

`Hosts` needs root and `ip netns`; everything it makes lives inside namespaces of its own, so that deleting those leaves
nothing behind. Shared by the tests that are marked `netns`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType

from making_nodes import MESHNODE

PORT = 4411


def hindrance() -> str | None:
    """Why no namespaces can be made here; None where they can."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "there is no `ip`"
    name = f"mn{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return made.stderr.strip() or "`ip netns add` failed"
    try:
        # Some sandboxes make namespaces but no interfaces in them.
        words = ["ip", "-n", name, "link", "add", "b0", "type", "bridge"]
        made = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        ip("netns", "del", name)
    return None if made.returncode == 0 else made.stderr.strip()


def ip(*words: str) -> None:
    """Run `ip`; raises where it fails, with what it said."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Hosts:
    """Use as a context manager: all namespaces are gone at its end."""

    def __init__(self) -> None:
        self._prefix = f"mn{os.getpid()}-"
        self._made: list[str] = []
        self.address: dict[str, str] = {}

    def __enter__(self) -> Hosts:
        switch = self._namespace("switch")
        ip("-n", switch, "link", "add", "b0", "type", "bridge")
        ip("-n", switch, "link", "set", "b0", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def host(self, name: str, address: str) -> None:
        """A host at `address` (of a /24), with a container bridge as docker makes it on every host."""
        namespace, switch, port = self._namespace(name), f"{self._prefix}switch", f"p{len(self._made)}"
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
        ip("-n", switch, "link", "set", port, "master", "b0", "up")
        ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")
        ip("-n", namespace, "link", "add", "docker0", "type", "bridge")
        ip("-n", namespace, "addr", "add", "172.17.0.1/16", "dev", "docker0")
        ip("-n", namespace, "link", "set", "docker0", "up")
        self.address[name] = address

    def renumber(self, name: str, address: str) -> None:
        """The host is at another address of the same network from now on: it moved to another router."""
        namespace = f"{self._prefix}{name}"
        # In this order: with its first address of a network a host loses the others of that network too.
        ip("-n", namespace, "addr", "del", f"{self.address[name]}/24", "dev", "eth0")
        ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        self.address[name] = address

    def narrow(self, name: str, mtu_bytes: int) -> None:
        """The host's line takes packets of at most `mtu_bytes`, as behind a tunnel."""
        ip("-n", f"{self._prefix}{name}", "link", "set", "eth0", "mtu", str(mtu_bytes))

    def shut(self, name: str) -> None:
        """A firewall before the host, which lets UDP in only from the port that nodes send from: what a stateful one
        does with packets that answer none of the host's own. (Each of the others drops them when it sends.)"""
        for other in self.address.keys() - {name}:
            match = ("-n", f"{self._prefix}{other}", "rule", "add", "to", self.address[name], "ipproto", "udp")
            ip(*match, "sport", str(PORT), "pref", "100", "lookup", "main")
            ip(*match, "pref", "101", "blackhole")

    def program(self, name: str) -> tuple[str, ...]:
        """How meshnode is started on the host."""
        return ("ip", "netns", "exec", f"{self._prefix}{name}", *MESHNODE)

    def _namespace(self, name: str) -> str:
        full = f"{self._prefix}{name}"
        ip("netns", "add", full)
        self._made.append(full)
        return full
