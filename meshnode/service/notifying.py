"""What the process owes to whoever started it: readiness to systemd, and a port conflict that names its holder.

What lives here: `sd_notify` (sd_notify(3): one datagram to `NOTIFY_SOCKET`), `feed_watchdog` and `port_holder`. What
does not: the service manager's files (`meshnode.service.files`). Called by the daemon.
"""

from __future__ import annotations

import os
import socket

import anyio


def sd_notify(state: str) -> None:
    """Tell the service manager `READY=1`, `STOPPING=1`, ...; nothing happens where none listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # "@" names a socket in Linux' abstract namespace, whose address begins with a NUL byte.
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(state.encode(), name)
        except OSError:
            # The manager is gone or full; the node's work does not depend on it.
            return


def watchdog_s() -> float | None:
    """How long the service manager waits for a sign of life before it ends this process (sd_watchdog_enabled(3)); None
    where it does not watch this one."""
    period_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not period_us.isascii() or not period_us.isdigit() or int(period_us) == 0 or pid != str(os.getpid()):
        return None
    return int(period_us) / 1e6


async def feed_watchdog() -> None:
    """Tell the service manager that the event loop turns, twice in its time; returns at once where nobody watches."""
    period_s = watchdog_s()
    while period_s is not None:
        sd_notify("WATCHDOG=1")
        await anyio.sleep(period_s / 2)


def port_holder(port: int, kind: str) -> str:
    """Who uses `port` (`kind` is `udp` or `tcp`), as far as this user may see: ` by process 123 (name)`, or nothing."""
    import psutil

    try:
        connections = psutil.net_connections(kind)
    except psutil.Error:
        return ""
    for connection in connections:
        if connection.laddr and connection.laddr.port == port and connection.pid is not None:
            return f" by process {connection.pid} ({_name_of(connection.pid)})"
    return ""


def _name_of(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "it is gone already"
