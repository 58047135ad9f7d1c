"""A UDP socket's word on when a datagram came."""

from __future__ import annotations

import select
import socket
import time

from meshnode.transport.clock import boottime_s
from meshnode.transport.udp import UdpSocket

CLOCK_STEP_S = 1e-6
"""Seconds since 1970 in a float are a quarter of a microsecond apart."""


def interrupted_clock_s() -> float:
    """A clock whose reader gets no processor for a while, right after it has read it."""
    now_s = boottime_s()
    time.sleep(0.005)
    return now_s


def test_no_datagram_seems_to_have_come_before_it_was_sent() -> None:
    receiving = UdpSocket(("127.0.0.1", 0), interrupted_clock_s)
    sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for _ in range(5):
            sent_at_s = boottime_s()
            sending.sendto(b"datagram", receiving.name)
            select.select([receiving], [], [], 5)
            (received,) = receiving.receive(64)
            assert received.at_s > sent_at_s - CLOCK_STEP_S
    finally:
        sending.close()
        receiving.close()
