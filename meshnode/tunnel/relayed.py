"""A tunnel inside messages that a common neighbour carries.

What lives here: `RelayedStream`, `RelayKeys`, `Pacer`. What does not: relaying (`meshnode.membership.relaying`, which
signs each message and lets none be repeated), who may have a tunnel (`tunnels`).

The neighbour must not read what it carries, so each piece is sealed (ChaCha20-Poly1305, RFC 8439) with a key of the two
ends: X25519 (RFC 7748) over the fresh keys of request and answer, which are signed on their way, then HKDF-SHA256 (RFC
5869). The pieces' sequence numbers are the nonces.

Relaying may lose messages, and the neighbour's link takes 256 KiB/s in all. So a direction has a window of
`relay_window_bytes`, opened by `TunnelCredit` as the reader takes bytes; all relayed tunnels of a node share one pace;
and a piece that is missing breaks the stream: either a later one shows it, or the count in a credit message, which both
ends send every `KEEP_S` as a sign of life as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from meshnode.transport.rate_limit import TokenBucket
from proto.ids import NodeId, public_key_of
from proto.messages import Message
from proto.tunnels import TunnelBytes, TunnelCancel, TunnelCredit

PIECE_BYTES = 8192
KEEP_S = 5.0
SILENCE_S = 20.0
"""After this long without a word from the other end, the stream is broken."""
LABEL = b"meshnode/v1/tunnel"
KEY_BYTES = 32


@dataclass(frozen=True)
class RelayKeys:
    """One end's keys: for what it sends, and for what it receives."""

    sending: ChaCha20Poly1305
    receiving: ChaCha20Poly1305

    @classmethod
    def agree(
        cls, own: X25519PrivateKey, other: bytes, *, number: int, opener: NodeId, acceptor: NodeId, opened_here: bool
    ) -> Self:
        """From this end's private and the other's public key. Raises `ValueError` for a key of low order."""
        secret = own.exchange(X25519PublicKey.from_public_bytes(other))
        info = LABEL + public_key_of(opener) + public_key_of(acceptor)
        derived = HKDF(SHA256(), 2 * KEY_BYTES, salt=number.to_bytes(8, "big"), info=info).derive(secret)
        forth, back = ChaCha20Poly1305(derived[:KEY_BYTES]), ChaCha20Poly1305(derived[KEY_BYTES:])
        return cls(forth, back) if opened_here else cls(back, forth)


class Pacer:
    """What all relayed tunnels of one node may send together."""

    def __init__(self, bytes_per_s: float, clock: Callable[[], float]) -> None:
        self._bucket = TokenBucket(bytes_per_s, bytes_per_s / 4, clock())
        self._clock = clock

    async def spend(self, count: int) -> None:
        """Count `count` bytes and wait until the pace has caught up with them."""
        self._bucket.spend(count, self._clock())
        await anyio.sleep(self._bucket.ready_in_s(self._clock()))


class RelayedStream(ByteStream):
    """One end. `post` sends a message to the other; `ended` is told once that nothing more need be given to it."""

    def __init__(
        self,
        number: int,
        keys: RelayKeys,
        *,
        opened_here: bool,
        window_bytes: int,
        pacer: Pacer,
        clock: Callable[[], float],
        post: Callable[[Message], None],
        ended: Callable[[], None],
    ) -> None:
        self._number = number
        self._keys = keys
        self._to_opener = not opened_here
        self._window_bytes = window_bytes
        self._pacer = pacer
        self._clock = clock
        self._post = post
        self._ended = ended
        self._changed = anyio.Event()
        self._pieces: deque[bytes] = deque()
        self._sent_pieces = self._sent_bytes = self._credited_bytes = 0
        self._received_pieces = self._received_bytes = self._taken_bytes = self._told_bytes = 0
        self._sent_eof = self._received_eof = False
        self._is_broken = self._is_closed = False
        self._heard_at_s = clock()

    # --- TunnelStream ---

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """See `Tunnel.receive`."""
        await anyio.lowlevel.checkpoint()
        while not self._pieces:
            if self._received_eof and not self._is_closed:
                raise anyio.EndOfStream
            self._check_open()
            await self._changed.wait()
        piece = self._pieces.popleft()
        if len(piece) > max_bytes:
            self._pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self._taken_bytes += len(piece)
        if self._taken_bytes - self._told_bytes >= self._window_bytes // 2 and not self._received_eof:
            self._tell_credit()
        return piece

    async def send(self, item: bytes) -> None:
        """See `Tunnel.send`."""
        await anyio.lowlevel.checkpoint()
        rest = memoryview(item)
        while rest:
            self._check_sending()
            room_bytes = min(PIECE_BYTES, self._credited_bytes + self._window_bytes - self._sent_bytes)
            if room_bytes <= 0:
                await self._changed.wait()
                continue
            await self._pacer.spend(min(room_bytes, len(rest)))
            self._check_sending()
            self._seal(bytes(rest[:room_bytes]), end=False)
            rest = rest[room_bytes:]

    async def send_eof(self) -> None:
        """See `Tunnel.send_eof`."""
        self._check_open()
        if not self._sent_eof:
            self._sent_eof = True
            self._seal(b"", end=True)
            self._end_if_done()
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """See `Tunnel.aclose`."""
        self.abandon()
        await anyio.lowlevel.checkpoint()

    def abandon(self) -> None:
        """See `TunnelStream`."""
        if not self._is_closed:
            self._is_closed = True
            self._over(tell=not (self._sent_eof and self._received_eof))

    # --- told by whoever receives messages ---

    def take(self, message: TunnelBytes | TunnelCredit | TunnelCancel) -> None:
        """A message of the other end."""
        self._heard_at_s = self._clock()
        match message:
            case TunnelBytes():
                self._take_piece(message)
            case TunnelCredit():
                self._credited_bytes = min(max(self._credited_bytes, message.taken_bytes), self._sent_bytes)
                if message.sent_pieces > self._received_pieces:
                    self._break(tell=True)
            case TunnelCancel():
                self._break(tell=False)
        self._wake()

    def keep(self) -> None:
        """Called every `KEEP_S`."""
        if self._clock() - self._heard_at_s > SILENCE_S:
            self._break(tell=True)
        elif not self._is_broken and not self._is_closed:
            self._tell_credit()

    # --- pieces ---

    def _take_piece(self, message: TunnelBytes) -> None:
        if self._is_broken or self._is_closed:
            return
        try:
            piece = self._keys.receiving.decrypt(_nonce(message.sequence), message.sealed, _marks(message.end))
        except InvalidTag:
            piece = None
        self._received_bytes += 0 if piece is None else len(piece)
        over_window = self._received_bytes - self._taken_bytes > self._window_bytes
        if piece is None or message.sequence != self._received_pieces or over_window or self._received_eof:
            self._break(tell=True)
            return
        self._received_pieces += 1
        if piece:
            self._pieces.append(piece)
        if message.end:
            self._received_eof = True
            self._end_if_done()

    def _seal(self, piece: bytes, *, end: bool) -> None:
        sealed = self._keys.sending.encrypt(_nonce(self._sent_pieces), piece, _marks(end))
        self._post(TunnelBytes(self._number, self._to_opener, self._sent_pieces, sealed, end))
        self._sent_pieces += 1
        self._sent_bytes += len(piece)

    def _tell_credit(self) -> None:
        self._told_bytes = self._taken_bytes
        self._post(TunnelCredit(self._number, self._to_opener, self._taken_bytes, self._sent_pieces))

    # --- ending ---

    def _break(self, *, tell: bool) -> None:
        if not self._is_broken and not self._is_closed:
            self._is_broken = True
            self._over(tell=tell)

    def _over(self, *, tell: bool) -> None:
        if self._is_closed or not self._received_eof:
            self._pieces.clear()
        self._wake()
        if tell:
            self._post(TunnelCancel(self._number, self._to_opener))
        self._ended()

    def _end_if_done(self) -> None:
        if self._sent_eof and self._received_eof:
            self._ended()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _check_open(self) -> None:
        if self._is_closed:
            raise anyio.ClosedResourceError
        if self._is_broken:
            raise anyio.BrokenResourceError

    def _check_sending(self) -> None:
        self._check_open()
        if self._sent_eof:
            raise anyio.ClosedResourceError


def _nonce(sequence: int) -> bytes:
    return sequence.to_bytes(12, "big")


def _marks(end: bool) -> bytes:
    return b"end" if end else b""
