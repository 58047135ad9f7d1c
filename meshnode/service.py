"""What the process owes to whoever started it: readiness to systemd, and a port conflict that names its holder.

What lives here: `sd_notify` (sd_notify(3): one datagram to `NOTIFY_SOCKET`) and `port_holder`. Called by the daemon.
"""

from __future__ import annotations

import os
import socket


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
