"""The wire protocol's reference page, made from the shapes that are the protocol.

What lives here: `protocol_page`. What does not: the shapes (`proto`) and writing files (`meshnode.reference`). Fields,
types and bounds are read from the shapes, meanings from their docstrings, so that the page can't say anything else than
the code does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import inspect

from meshnode.admission.advice import ADVICE
from proto.codec import MAX_PART_BYTES
from proto.credential import MAX_CREDENTIAL_BYTES, Credential
from proto.messages import RefusalCode
from proto.parts import MAX_CHAIN, PART_SHAPES, PartKind, SignedPart
from proto.registry import CONTROL_MESSAGES, DATAGRAM_MESSAGES, MAX_DATAGRAM_BYTES, MAX_FRAME_BYTES
from proto.revocation import MAX_REVOCATION_BYTES, Revocation
from proto.signing import CONTEXT
from proto.token import MAX_TOKEN_LENGTH, PREFIX, InviteToken
from proto.versions import ALPN, OURS, STAGE_PROTOCOL_GENERATION
from proto.weights import WEIGHTS_MESSAGES

Shape = type[msgspec.Struct]

_HEAD: Final = f"""\
# Wire protocol

Made from the code (`proto/`); `make docs` makes it anew.

Protocol versions {OURS}, ALPN `{ALPN}`, stage protocol generation {STAGE_PROTOCOL_GENERATION}. Every figure below is a
bound that the receiver enforces before it uses anything. `tests/vectors/wire.json` holds test vectors: keys made from
known seeds, each signed thing and frames of every stage of a node's life, as exact bytes; its own README says how to
read it. Another implementation is right when it makes and reads those bytes.

A node id and a mesh id are an Ed25519 public key in lowercase base32 without padding, 52 characters; a short id is its
first 8 bytes. Counters stay below 2^53, so that every JSON reader holds them exactly. Durations are whole microseconds,
sizes whole bytes.

## Transport

One UDP socket carries QUIC (TLS 1.3) in both directions. The acceptor proves itself by a self-signed Ed25519
certificate: its public key must be the node id that was dialled; names, dates and issuers in it are ignored. ALPN is
`{ALPN}` for ever; versions are agreed on in the hello. The dialler opens one bidirectional stream, the control
stream, which lives as long as the link.

A **frame** on the control stream is `u32 big-endian length | msgpack map`, at most {MAX_FRAME_BYTES:,} bytes and at
most the limit of its type. The map's first key is `type`. A type that the receiver does not know is skipped whole, an
unknown field is skipped, a field of the wrong type or out of its bounds ends the link with a named reason. Before the
welcome only the handshake's types are read. A **datagram** is one such map without a length, at most
{MAX_DATAGRAM_BYTES:,} bytes, in a QUIC DATAGRAM frame (RFC 9221).

## Signatures

Ed25519 (RFC 8032). What is signed is a list of pieces, each preceded by its length as 4 bytes big-endian:
`{CONTEXT}<kind>`, the mesh id as text, then the kind's own pieces. Kinds: `record.identity`, `record.offer`,
`record.network`, `claim`, `relay`, `proof`, `life`, `credential`, `invite`, `revocation`. A key of small order proves
nothing and is refused.

## A link's opening

    dialler                         acceptor
    hello            ----------->
                     <-----------   challenge (version, nonce)
    proof            ----------->              (signature, chain or token)
                     <-----------   welcome    (chain, observed address) or refusal
    revocations      <---------->   revocations (complete: true)
    view_hash, digest, delta        gossip from here on

The proof signs both node ids, the acceptor's nonce and the ALPN, so that it can be neither relayed nor repeated. A
dialler that redeems an invite token sends the token only after TLS has shown that the acceptor is a member which the
token pins.

Of two links between the same two nodes (both dialled at once) the one dialled by the smaller node id stays; a second
one dialled by the same side replaces its first.
"""


def protocol_page() -> str:
    """The page as Markdown."""
    pieces = [_HEAD, "\n## Messages\n", "\n| type | travels as | at most |\n|---|---|---|\n"]
    for shape, limit in CONTROL_MESSAGES.items():
        pieces.append(f"| [`{_tag(shape)}`](#{_tag(shape)}) | {_carrier(shape)} | {limit:,} bytes |\n")
    for shape, limit in WEIGHTS_MESSAGES.items():
        pieces.append(f"| [`{_tag(shape)}`](#{_tag(shape)}) | frame in a tunnel for `weights` | {limit:,} bytes |\n")
    for shape in (*CONTROL_MESSAGES, *WEIGHTS_MESSAGES):
        pieces.extend(_section(_tag(shape), shape))
    pieces.append(_records())
    pieces.append(_membership())
    pieces.append("\n## Codes of a refusal\n\n| code | what to do |\n|---|---|\n")
    pieces.extend(f"| `{code.value}` | {ADVICE[code]} |\n" for code in RefusalCode)
    return "".join(pieces)


def _records() -> str:
    lines = [
        "\n## Records\n\nA record has three parts, each signed by its owner and versioned alone. On the wire a part is"
        f" an envelope; its body is at most {MAX_PART_BYTES:,} bytes of msgpack.\n\n### signed part\n\n",
        f"{_meaning(SignedPart)}\n\n",
        *_field_lines(SignedPart),
    ]
    parts: dict[PartKind, Shape] = {**PART_SHAPES}
    for kind, shape in parts.items():
        lines += _section(f"{kind.value} part", shape)
    for inner in _inner_shapes((*CONTROL_MESSAGES, *WEIGHTS_MESSAGES, *PART_SHAPES.values())):
        lines += _section(_spaced(inner), inner)
    return "".join(lines)


def _membership() -> str:
    lines = [
        "\n## Credentials, tokens, revocations\n\nA credential and a revocation are each a msgpack array of two byte"
        " strings: the body (a msgpack array in the order below; later versions append) and the signature over it."
        f" A chain is at most {MAX_CHAIN} credentials, the root's first; a child's rights are at most its parent's.\n"
    ]
    limits: dict[Shape, int] = {Credential: MAX_CREDENTIAL_BYTES, Revocation: MAX_REVOCATION_BYTES}
    for shape, limit in limits.items():
        lines += _section(_spaced(shape), shape, f" At most {limit:,} bytes.")
    lines.append(
        f"\n### invite token\n\n`{PREFIX}` and the url-safe base64, without padding, of: signature (64 bytes), payload"
        f" (a msgpack array as below), and the first 4 bytes of SHA-256 over prefix, signature and payload. At most"
        f" {MAX_TOKEN_LENGTH:,} characters. {_meaning(InviteToken)}\n\n"
    )
    lines += _field_lines(InviteToken)
    for inner in _inner_shapes((InviteToken,)):
        lines += _section(_spaced(inner), inner)
    return "".join(lines)


def _section(title: str, shape: Shape, more: str = "") -> Iterator[str]:
    yield f"\n### {title}\n\n{_meaning(shape)}{more}\n\n"
    yield from _field_lines(shape)


def _inner_shapes(outers: Iterable[Shape]) -> list[Shape]:
    """Structs that stand inside `outers`, each once, in the order in which they are met."""
    found: dict[Shape, None] = {}
    for outer in outers:
        for field in _fields(outer):
            for inner in _structs_in(field.type):
                if inner is not SignedPart:
                    found.setdefault(inner)
    return list(found)


def _structs_in(kind: inspect.Type) -> Iterator[Shape]:
    if isinstance(kind, inspect.StructType):
        yield kind.cls
        for field in kind.fields:
            yield from _structs_in(field.type)
    elif isinstance(kind, inspect.VarTupleType):
        yield from _structs_in(kind.item_type)
    elif isinstance(kind, inspect.TupleType):
        for item in kind.item_types:
            yield from _structs_in(item)
    elif isinstance(kind, inspect.UnionType):
        for choice in kind.types:
            yield from _structs_in(choice)


def _fields(shape: Shape) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(shape)
    assert isinstance(info, inspect.StructType), "every shape of the wire is a struct"
    return info.fields


def _field_lines(shape: Shape) -> Iterator[str]:
    for field in _fields(shape):
        optional = "" if field.required else ", may be left out"
        yield f"- `{field.encode_name}`: {_type_text(field.type)}{optional}\n"


def _type_text(kind: inspect.Type) -> str:
    """A type with its bounds, in words."""
    match kind:
        case inspect.StructType():
            form = "an array of the fields of" if kind.array_like else "a map, as"
            return f"{form} [{_spaced(kind.cls)}](#{_spaced(kind.cls).replace(' ', '-')})"
        case inspect.VarTupleType():
            return f"array of {_bounds(kind.min_length, kind.max_length, '')}: {_type_text(kind.item_type)}".strip()
        case inspect.TupleType():
            return "[" + ", ".join(_type_text(item) for item in kind.item_types) + "]"
        case inspect.UnionType():
            return " or ".join(_type_text(choice) for choice in kind.types)
        case inspect.IntType():
            return f"integer {_bounds(kind.ge, kind.le, '')}".strip()
        case inspect.FloatType():
            return f"float {_bounds(kind.ge, kind.le, '')}".strip()
        case inspect.BytesType():
            return f"{_bounds(kind.min_length, kind.max_length, ' bytes')}".strip() or "bytes"
        case inspect.StrType():
            return f"text of {_bounds(kind.min_length, kind.max_length, ' characters')}"
        case inspect.EnumType():
            return "one of " + ", ".join(f"`{member.value}`" for member in kind.cls)
        case inspect.NoneType():
            return "nil"
        case inspect.BoolType():
            return "boolean"
    raise TypeError(f"the page has no words for {kind}")


def _bounds(least: float | None, most: float | None, unit: str) -> str:
    if least == most:
        return "" if least is None else f"{least:,}{unit}"
    if most is None:
        return f"at least {least:,}{unit}"
    return f"up to {most:,}{unit}" if not least else f"{least:,} to {most:,}{unit}"


def _carrier(shape: Shape) -> str:
    return "datagram, frame" if shape in DATAGRAM_MESSAGES else "frame"


def _tag(shape: Shape) -> str:
    return str(shape.__struct_config__.tag)


def _meaning(shape: Shape) -> str:
    return " ".join((shape.__doc__ or "").split())


def _spaced(shape: Shape) -> str:
    """`DeviceOffer` as `device offer`."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in shape.__name__).strip()
