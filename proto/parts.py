"""A node's record: three parts, each signed by its owner and versioned alone.

What lives here: the shapes of the parts' bodies and of the signed envelope that is relayed. What does not: signing and
verifying (`proto.signing`), merging (`meshnode.membership`).

A part's order is `(incarnation, version)`, both its owner's own counters: the larger pair is the newer part. The
envelope carries the body's encoded bytes untouched, so that a relay that knows fewer fields than the owner passes
them on with the signature still good.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from proto.shapes import (
    WireAddress,
    WireBootId,
    WireBytesFigure,
    WireCounter,
    WireMicroseconds,
    WireNodeId,
    WireShortId,
    WireSignature,
    WireText,
    WireWord,
)

MAX_ADDRESSES = 16
MAX_DEVICES = 32
MAX_MODELS = 64
MAX_FETCHED = 8
MAX_FEATURES = 64
MAX_ROW = 64
MAX_CHAIN = 4
COORDINATE_DIMENSIONS = 4


class PartKind(StrEnum):
    """Which of a record's three parts; also the context word of its signature."""

    IDENTITY = "identity"
    OFFER = "offer"
    NETWORK = "network"


class Role(StrEnum):
    """What a node is to the mesh; comes from its credential only."""

    WORKER = "worker"
    CLIENT = "client"


class Willingness(StrEnum):
    """How gladly a node's owner lends it."""

    ALWAYS = "always"
    WHEN_NEEDED = "when_needed"
    NEVER = "never"


class SignedPart(Struct, frozen=True, forbid_unknown_fields=False):
    """The envelope: `body` is the msgpack of one of the part structs below, `signature` its owner's Ed25519 over
    context `meshnode/v1/record.<kind>`, mesh id and body."""

    kind: PartKind
    body: Annotated[bytes, Meta(max_length=16_384)]
    signature: WireSignature


class IdentityPart(Struct, frozen=True):
    """Who the node is and where it answers. `left=True` is its own goodbye, final for this incarnation."""

    node: WireNodeId
    incarnation: WireCounter
    version: WireCounter
    boot_id: WireBootId
    chain: Annotated[tuple[Annotated[bytes, Meta(max_length=1024)], ...], Meta(min_length=1, max_length=MAX_CHAIN)]
    """The credential chain, root's first, each as `proto.credential` encodes it."""
    addresses: Annotated[tuple[WireAddress, ...], Meta(max_length=MAX_ADDRESSES)]
    features: Annotated[tuple[WireWord, ...], Meta(max_length=MAX_FEATURES)]
    stage_protocol_generation: WireCounter
    software: WireWord
    name: WireWord = ""
    """What its owner calls the machine, for people; nothing is decided by it."""
    engine: WireWord | None = None
    """Engine and version found on this machine, such as `llama.cpp b6800`; None where there is none."""
    left: bool = False


class DeviceOffer(Struct, frozen=True):
    """One device as offered: `capacity_bytes` before headroom, `usable_bytes` what stages may take in all, of which
    `reserved_bytes` are held by running splits."""

    id: WireWord
    kind: WireWord
    name: WireWord
    capacity_bytes: WireBytesFigure
    usable_bytes: WireBytesFigure
    reserved_bytes: WireBytesFigure = 0
    memory_bandwidth_bytes_per_s: WireBytesFigure | None = None
    bandwidth_source: WireWord = "unknown"
    compute_flops: Annotated[int, Meta(ge=0, le=9 * 10**18)] | None = None
    declared: bool = False
    """True where the operator declared the figure and nothing measured it."""


class FetchedLayers(Struct, frozen=True, array_like=True):
    """Layers [layer_start, layer_end) of the package `manifest` that this node fetched from `source` and keeps: plans
    that `source` coordinates find them here. With the last layer goes the output head."""

    source: WireNodeId
    manifest: Annotated[str, Meta(max_length=128)]
    layer_start: WireCounter
    layer_end: WireCounter


class ModelOffer(Struct, frozen=True):
    """One model as this node sees it. `manifest` is None while its identity hash is not known; `cached_bytes` and
    `missing_bytes` are None while the inventory has not been read."""

    ref: WireText
    manifest: Annotated[str, Meta(max_length=128)] | None
    wanted: bool
    complete: bool
    cached_bytes: WireBytesFigure | None
    missing_bytes: WireBytesFigure | None
    is_profile: bool = False
    """The ref is a profile: figures without files, good for planning only."""
    generation: WireCounter | None = None
    """The number of the plan by which this node coordinates a split of the model now; None where there is none."""
    fetched: Annotated[tuple[FetchedLayers, ...], Meta(max_length=MAX_FETCHED)] = ()
    """What a node without the files keeps of earlier loads."""


class OfferPart(Struct, frozen=True):
    """What the node gives: devices, host memory for coordinating, models, willingness."""

    node: WireNodeId
    incarnation: WireCounter
    version: WireCounter
    devices: Annotated[tuple[DeviceOffer, ...], Meta(max_length=MAX_DEVICES)]
    host_usable_bytes: WireBytesFigure
    host_declared: bool
    models: Annotated[tuple[ModelOffer, ...], Meta(max_length=MAX_MODELS)]
    willingness: Willingness
    draining: bool
    interested_in: Annotated[tuple[WireText, ...], Meta(max_length=MAX_MODELS)] | None
    """Refs this worker takes stages of; None means every model."""
    inventory_known: bool
    artifact_transfer: bool
    """True where the node can fetch missing model bytes from peers."""


class RttEntry(Struct, frozen=True, array_like=True):
    """One measured link of an RTT row: `rtt_us` is the window minimum, `smoothed_us` the moving mean."""

    peer: WireShortId
    rtt_us: WireMicroseconds
    smoothed_us: WireMicroseconds
    samples: WireCounter
    relayed: bool


class Coordinate(Struct, frozen=True, array_like=True):
    """A Vivaldi coordinate (Dabek et al., SIGCOMM 2004): position and height in microseconds, error a fraction."""

    position_us: Annotated[
        tuple[Annotated[float, Meta(ge=-1e9, le=1e9)], ...],
        Meta(min_length=COORDINATE_DIMENSIONS, max_length=COORDINATE_DIMENSIONS),
    ]
    height_us: Annotated[float, Meta(ge=0.0, le=1e9)]
    error: Annotated[float, Meta(ge=0.0, le=10.0)]


class NetworkPart(Struct, frozen=True):
    """What the node measured of its links. Above `max_links` nodes the row is empty and only the coordinate goes."""

    node: WireNodeId
    incarnation: WireCounter
    version: WireCounter
    row: Annotated[tuple[RttEntry, ...], Meta(max_length=MAX_ROW)]
    coordinate: Coordinate | None


Part = IdentityPart | OfferPart | NetworkPart
PART_SHAPES: dict[PartKind, type[IdentityPart] | type[OfferPart] | type[NetworkPart]] = {
    PartKind.IDENTITY: IdentityPart,
    PartKind.OFFER: OfferPart,
    PartKind.NETWORK: NetworkPart,
}
