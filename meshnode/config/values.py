"""How a single value of the configuration is read: from TOML (already typed) or from text (environment, flag).

What lives here: the parsers, one per kind of value, what each takes in the words of a flag's help, and `parse_size`,
which every input of bytes goes through. What does not: which keys there are (`meshnode.config.keys`). A parser returns
the typed value or raises `WrongValue`, which says what would be right; the caller knows the key and the place and makes
the whole sentence.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from proto.ids import NodeId, parse_node_id

Parser = Callable[[object], object]

_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "PIB": 2**50,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")
SIZE_EXPECTED = "a size such as 24GB (10^9 bytes), 24GiB (2^30 bytes) or a whole number of bytes"
MAX_SIZE_BYTES = 10**17
"""The largest figure the wire carries (`proto.shapes.MAX_BYTES_FIGURE`)."""


MIN_MEMORY_BYTES = 10**6


@dataclass(frozen=True, slots=True)
class Bounded:
    """A parser that takes only some values of a kind. `takes` is the kind as a flag's help names it, `bounds` which
    values are right, for people ("" where `takes` says it all)."""

    takes: str
    bounds: str
    parse: Parser

    def __call__(self, value: object) -> object:
        return self.parse(value)


class WrongValue(ValueError):
    """A value cannot be meant; `expected` completes the sentence "expected ..."."""

    def __init__(self, expected: str) -> None:
        self.expected = expected
        super().__init__(f"expected {expected}")


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A numeric address and a UDP or TCP port: `0.0.0.0:4411`, `[::1]:4411`. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StaticPeer:
    """A member to dial without an inviter: its node id and where it answers."""

    node: NodeId
    address: SocketAddress

    def __str__(self) -> str:
        return f"{self.node}@{self.address}"


def parse_size(value: object) -> int:
    """Bytes of `"24GB"`, `"1.5 GiB"`, `"512MB"` or a whole number. `GB` is 10^9 and `GiB` 2^30. Raises `WrongValue`."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise WrongValue(SIZE_EXPECTED)
    match = _SIZE.fullmatch(str(value).strip())
    if match is None or match[2].upper() not in _UNITS:
        raise WrongValue(SIZE_EXPECTED)
    integer, _, fraction = match[1].partition(".")
    unit_bytes = _UNITS[match[2].upper()]
    # Decimal digits times the unit in whole numbers: "154.6GB" is 154,600,000,000 bytes, not a binary float near it.
    count: int = int(integer + fraction) * unit_bytes // 10 ** len(fraction)
    if count > MAX_SIZE_BYTES:
        raise WrongValue("at most 100PB")
    return count


def memory_size(value: object) -> int:
    """As `parse_size`, and at least a megabyte: a plain `24` is a forgotten unit, no device gives 24 bytes."""
    count = parse_size(value)
    if count < MIN_MEMORY_BYTES:
        raise WrongValue(SIZE_EXPECTED + ", at least 1MB")
    return count


def text(value: object) -> str:
    """Printable text of 1 to 512 characters."""
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not value.isprintable():
        raise WrongValue("a printable text of 1 to 512 characters")
    return value


def node_name(value: object) -> str:
    """A name for people: at most 40 printable characters."""
    if not isinstance(value, str) or not 0 < len(value) <= 40 or not value.isprintable():
        raise WrongValue("a name of 1 to 40 printable characters")
    return value


def boolean(value: object) -> bool:
    """TOML's true and false; 1, true, yes, on and their opposites in text."""
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise WrongValue("true or false")


def path(value: object) -> Path:
    """A path; `~` is the home directory."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise WrongValue("a path")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise WrongValue("a path; the home directory that ~ means is not known") from error


def number(minimum: float, maximum: float) -> Bounded:
    """A parser of finite numbers from `minimum` to `maximum`."""

    def parse(value: object) -> float:
        found = _number_of(value)
        if found is None or not minimum <= found <= maximum:
            raise WrongValue(f"a number from {minimum:g} to {maximum:g}")
        return found

    return Bounded("N", f"{minimum:g} to {maximum:g}", parse)


def whole(minimum: int, maximum: int) -> Bounded:
    """A parser of whole numbers from `minimum` to `maximum`."""

    def parse(value: object) -> int:
        found = _number_of(value)
        if found is None or found != int(found) or not minimum <= found <= maximum:
            raise WrongValue(f"a whole number from {minimum} to {maximum}")
        return int(found)

    return Bounded("N", f"{minimum} to {maximum}", parse)


def choice(*words: str) -> Bounded:
    """A parser of one word out of `words`."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise WrongValue(f"one of {', '.join(words)}")
        return value

    return Bounded(f"[{'|'.join(words)}]", "", parse)


def list_of(parse_one: Parser, *, at_most: int) -> Bounded:
    """A parser of lists: a TOML array, repeated flags, or text with commas. An empty text is the empty list."""

    def parse(value: object) -> tuple[object, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, Sequence):
            raise WrongValue("a list")
        if len(value) > at_most:
            raise WrongValue(f"at most {at_most} entries")
        return tuple(parse_one(entry) for entry in value)

    return Bounded(takes_of(parse_one), bounds_of(parse_one), parse)


def socket_address(value: object) -> SocketAddress:
    """`1.2.3.4:4411` or `[fe80::1]:4411`: numeric, because a name could mean another machine tomorrow."""
    expected = "a numeric address and port such as 192.168.1.5:4411 or [2001:db8::5]:4411"
    if not isinstance(value, str):
        raise WrongValue(expected)
    host, separator, port_text = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError as error:
        raise WrongValue(expected) from error
    if not separator or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65_535:
        raise WrongValue(expected + " (the port is 0 to 65535)")
    if (parsed.version == 6) is not bracketed:
        raise WrongValue(expected + " (an IPv6 address stands in brackets)")
    return SocketAddress(host, int(port_text))


def listen_address(value: object) -> SocketAddress:
    """A socket address; `*:4411` listens on every address of the machine, IPv6 and IPv4."""
    if isinstance(value, str) and value.startswith("*:"):
        return socket_address("[::]:" + value[2:])
    return socket_address(value)


def loopback_address(value: object) -> SocketAddress:
    """A socket address of this machine only."""
    address = socket_address(value)
    if not ipaddress.ip_address(address.host).is_loopback:
        raise WrongValue("a loopback address such as 127.0.0.1:9338: the control interface is not for networks")
    return address


def http_url(value: object) -> str:
    """An `http` or `https` URL with a host."""
    expected = "a URL such as http://localhost:4318"
    if not isinstance(value, str) or any(character.isspace() for character in value):
        raise WrongValue(expected)
    try:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise WrongValue(expected)
    except ValueError as error:
        raise WrongValue(expected) from error
    return value


def static_peer(value: object) -> StaticPeer:
    """`NODE_ID@ADDR:PORT`."""
    expected = "NODE_ID@ADDR:PORT: 52 characters of a-z and 2-7, then the address; `meshnode status` on it shows both"
    if not isinstance(value, str) or "@" not in value:
        raise WrongValue(expected)
    node_text, _, address_text = value.partition("@")
    try:
        node = parse_node_id(node_text)
    except ValueError as error:
        raise WrongValue(expected) from error
    return StaticPeer(node, socket_address(address_text))


def node_prefix(value: object) -> str:
    """A node id or its beginning, at least the 10 characters that people see."""
    if not isinstance(value, str) or not re.fullmatch("[a-z2-7]{10,52}", value):
        raise WrongValue("a node id or its first 10 characters or more (a-z and 2-7)")
    return value


def takes_of(parser: Parser) -> str:
    """What a flag's help calls the value that `parser` reads: `SIZE`, `ADDR:PORT`, `[lan|wan|local]`."""
    return parser.takes if isinstance(parser, Bounded) else _TAKES[parser]


def bounds_of(parser: Parser) -> str:
    """Which values are right beyond what `takes_of` says, or ""."""
    return parser.bounds if isinstance(parser, Bounded) else ""


_TAKES: dict[Parser, str] = {
    text: "TEXT", node_name: "NAME", boolean: "[true|false]", path: "PATH", parse_size: "SIZE", memory_size: "SIZE",
    socket_address: "ADDR:PORT", listen_address: "ADDR:PORT", loopback_address: "ADDR:PORT", http_url: "URL",
    static_peer: "NODE_ID@ADDR:PORT", node_prefix: "NODE_ID",
}  # fmt: skip


def _number_of(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
