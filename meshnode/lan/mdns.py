"""Announcing and looking around on the local network, with the zeroconf library.

What lives here: `announced`, `look_around`. What does not: what an announcement means (`meshnode.lan.found`). Called by
`meshnode approve` and `meshnode join --lan`, never by the daemon, so that a node announces nothing unless its operator
waits for somebody to join.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from meshnode.lan.found import MAX_ADDRESSES, FoundMember, read_announcement
from proto.ids import short

if TYPE_CHECKING:
    from zeroconf import Zeroconf

SERVICE: Final = "_meshnode._udp.local."
RESOLVE_MS: Final = 2000
MAX_FOUND: Final = 64
INSTALL: Final = "pip install 'meshnode[lan]' (or: pipx inject meshnode zeroconf)"


class LanUnavailable(Exception):
    """The local network can't be asked: why, and what to do."""

    def __init__(self, message: str, advice: str) -> None:
        self.message = message
        self.advice = advice
        super().__init__(message)


@contextlib.contextmanager
def announced(member: FoundMember, interfaces: Sequence[str] = ()) -> Iterator[None]:
    """Announce `member` inside the block, on the interfaces with these addresses or on all. Raises
    `LanUnavailable`."""
    _require_library()
    from zeroconf import ServiceInfo

    hosts = [ipaddress.ip_address(text.rpartition(":")[0].strip("[]")) for text in member.addresses]
    info = ServiceInfo(
        SERVICE,
        f"{member.node[:24]}.{SERVICE}",
        port=int(member.addresses[0].rpartition(":")[2]),
        addresses=[host.packed for host in hosts][:MAX_ADDRESSES],
        properties={"mesh": member.mesh, "node": member.node, "name": member.name},
        server=f"meshnode-{short(member.node)}.local.",
    )
    with _opened(interfaces) as zeroconf:
        zeroconf.register_service(info, allow_name_change=True)
        try:
            yield
        finally:
            zeroconf.unregister_service(info)


def look_around(for_s: float, interfaces: Sequence[str] = ()) -> list[FoundMember]:
    """Every member that announces itself within `for_s` seconds, at most `MAX_FOUND`. Raises `LanUnavailable`."""
    _require_library()
    from zeroconf import ServiceBrowser, ServiceListener

    names: dict[str, None] = {}

    class Listener(ServiceListener):
        def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            if len(names) < MAX_FOUND:
                names[name] = None

        def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            names.pop(name, None)

        def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
            return

    found: list[FoundMember] = []
    with _opened(interfaces) as zeroconf:
        browser = ServiceBrowser(zeroconf, SERVICE, Listener())
        time.sleep(for_s)
        for name in list(names):
            info = zeroconf.get_service_info(SERVICE, name, RESOLVE_MS)
            if info is not None:
                member = read_announcement(info.properties, info.parsed_scoped_addresses(), info.port)
                found += [] if member is None else [member]
        browser.cancel()
    return found


def _require_library() -> None:
    try:
        import zeroconf  # noqa: F401  asked for, not used
    except ImportError as error:
        raise LanUnavailable("finding meshes on the local network needs the library zeroconf", INSTALL) from error


@contextlib.contextmanager
def _opened(interfaces: Sequence[str]) -> Iterator[Zeroconf]:
    from zeroconf import InterfaceChoice, Zeroconf

    try:
        zeroconf = Zeroconf(interfaces=list(interfaces) or InterfaceChoice.All)
    except OSError as error:
        advice = "see that a network is connected and that no firewall holds UDP port 5353"
        raise LanUnavailable(f"multicast DNS can't be used: {error}", advice) from error
    try:
        yield zeroconf
    finally:
        zeroconf.close()
