"""The relayed tunnels of one node: which message belongs to which.

What lives here: `RelayTable`. What does not: a single one (`relayed`).
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from meshnode.tunnel.relayed import KEEP_S, Pacer, RelayedStream, RelayKeys
from meshnode.tunnel.settings import TunnelSettings
from proto.ids import NodeId
from proto.messages import Message
from proto.tunnels import TunnelBytes, TunnelCancel, TunnelCredit

Key = tuple[NodeId, int, bool]
"""The other end, the request's nonce, and whether this node opened it: two nodes may choose the same nonce."""


class RelayTable:
    """`send` reaches a peer through a neighbour."""

    def __init__(
        self,
        local: NodeId,
        settings: TunnelSettings,
        clock: Callable[[], float],
        send: Callable[[NodeId, Message], None],
    ) -> None:
        self._local = local
        self._settings = settings
        self._clock = clock
        self._send = send
        self._pacer = Pacer(settings.relay_bytes_per_s, clock)
        self._streams: dict[Key, RelayedStream] = {}

    def make(
        self, peer: NodeId, number: int, own: X25519PrivateKey, other: bytes, *, opened_here: bool
    ) -> RelayedStream | None:
        """One end of a new tunnel with `peer`; None where its key is no good, or the number is in use."""
        key = (peer, number, opened_here)
        opener, acceptor = (self._local, peer) if opened_here else (peer, self._local)
        try:
            keys = RelayKeys.agree(own, other, number=number, opener=opener, acceptor=acceptor, opened_here=opened_here)
        except ValueError:
            return None
        if key in self._streams:
            return None
        stream = self._streams[key] = RelayedStream(
            number,
            keys,
            opened_here=opened_here,
            window_bytes=self._settings.relay_window_bytes,
            pacer=self._pacer,
            clock=self._clock,
            post=lambda message: self._send(peer, message),
            ended=lambda: self._forget(key),
        )
        return stream

    def hear(self, peer: NodeId, message: Message) -> None:
        """A message of a relayed tunnel came from `peer`."""
        assert isinstance(message, TunnelBytes | TunnelCredit | TunnelCancel), "registered for these types"
        # A message that goes to the opener is for this node where it opened the tunnel.
        stream = self._streams.get((peer, message.tunnel, message.to_opener))
        if stream is not None:
            stream.take(message)
        elif not isinstance(message, TunnelCancel):
            self._send(peer, TunnelCancel(message.tunnel, not message.to_opener))

    async def keep(self) -> None:
        """Keep them alive, and end those whose other end is gone, until cancelled."""
        while True:
            await anyio.sleep(KEEP_S)
            for stream in tuple(self._streams.values()):
                stream.keep()

    def _forget(self, key: Key) -> None:
        self._streams.pop(key, None)
