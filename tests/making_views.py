"""Small makers of mesh views: nodes with an offer, a link and an RTT, as membership would show them.

`a_node("b", capacity_gb=24)` is alive, offers 24 GB usable on one GPU, holds the model, is linked and measured: a
participant. Each keyword takes one of these away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from meshnode.membership.view import (
    LinkFacts,
    MeshView,
    NodeView,
    PathKind,
    RttFigure,
    RttSource,
    Status,
)
from proto.ids import BootId, MeshId, NodeId, mesh_id_of, node_id_of
from proto.messages import Confirm, DeviceFigure
from proto.parts import (
    DeviceOffer,
    FetchedLayers,
    IdentityPart,
    ModelOffer,
    OfferPart,
    Role,
    Willingness,
)
from proto.versions import STAGE_PROTOCOL_GENERATION

MODEL = "qwen3-coder-480b"
MANIFEST = "f" * 64
GB = 10**9
MESH: MeshId = mesh_id_of(bytes(32))


def node_id(name: str) -> NodeId:
    """A valid node id for a short name; names sort as their ids do for single letters."""
    first = bytes([ord(name[0])]) if name else b"\0"
    return node_id_of(first + sha256(name.encode()).digest()[1:])


def an_offer(
    node: NodeId,
    *,
    usable_bytes: int = 24 * GB,
    capacity_bytes: int | None = None,
    reserved_bytes: int = 0,
    devices: tuple[DeviceOffer, ...] | None = None,
    host_usable_bytes: int = 8 * GB,
    models: tuple[ModelOffer, ...] | None = None,
    willingness: Willingness = Willingness.ALWAYS,
    draining: bool = False,
    interested_in: tuple[str, ...] | None = None,
    inventory_known: bool = True,
    artifact_transfer: bool = True,
    incarnation: int = 1,
    version: int = 1,
) -> OfferPart:
    """An offer of one GPU that holds the complete model."""
    if devices is None:
        whole = usable_bytes if capacity_bytes is None else capacity_bytes
        devices = (DeviceOffer("gpu0", "cuda", "a GPU", whole, usable_bytes, reserved_bytes, 10**12),)
    return OfferPart(
        node=node,
        incarnation=incarnation,
        version=version,
        devices=devices,
        host_usable_bytes=host_usable_bytes,
        host_declared=False,
        models=(a_model(),) if models is None else models,
        willingness=willingness,
        draining=draining,
        interested_in=interested_in,
        inventory_known=inventory_known,
        artifact_transfer=artifact_transfer,
    )


def a_model(
    *,
    ref: str = MODEL,
    manifest: str | None = MANIFEST,
    wanted: bool = True,
    complete: bool = True,
    cached_bytes: int | None = 270 * GB,
    missing_bytes: int | None = 0,
    is_profile: bool = False,
    fetched: tuple[FetchedLayers, ...] = (),
) -> ModelOffer:
    """An entry of the model in an offer: all of it is there."""
    return ModelOffer(ref, manifest, wanted, complete, cached_bytes, missing_bytes, is_profile, fetched=fetched)


def an_identity(node: NodeId, *, incarnation: int = 1, generation: int = STAGE_PROTOCOL_GENERATION) -> IdentityPart:
    """An identity part; the chain is not looked at by readiness."""
    return IdentityPart(
        node=node,
        incarnation=incarnation,
        version=1,
        boot_id=a_boot(node),
        chain=(b"chain",),
        addresses=("192.0.2.1:4411",),
        features=(),
        stage_protocol_generation=generation,
        software="meshnode",
    )


def a_boot(node: NodeId, start: int = 0) -> BootId:
    """The boot id of a node's nth start."""
    return BootId(sha256(f"{node}/{start}".encode()).digest()[:16])


def an_rtt(
    rtt_ms: float = 1.0, *, corroborated: bool = True, samples: int = 3, source: RttSource = RttSource.MEASURED
) -> RttFigure:
    """A figure; corroborated unless said otherwise."""
    return RttFigure(rtt_ms, rtt_ms, 0.1, samples, 0.5, corroborated, source)


def a_link(*, path: PathKind = PathKind.DIRECT, up_since_s: float = 0.0, carrier: NodeId | None = None) -> LinkFacts:
    """A link that stands."""
    return LinkFacts(path, "192.0.2.1:4411", True, up_since_s, carrier)


def a_node(
    name: str,
    *,
    capacity_gb: float = 24,
    usable_bytes: int | None = None,
    role: Role = Role.WORKER,
    status: Status = Status.ALIVE,
    incarnation: int = 1,
    start: int = 0,
    offer: OfferPart | None = None,
    rtt: RttFigure | None = None,
    rtt_ms: float = 1.0,
    link: LinkFacts | None = None,
) -> NodeView:
    """A node that can take part. For what is *absent* use `dataclasses.replace(a_node("b"), link=None)`."""
    node = node_id(name)
    usable = round(capacity_gb * GB) if usable_bytes is None else usable_bytes
    return NodeView(
        node=node,
        role=role,
        status=status,
        incarnation=incarnation,
        boot_id=a_boot(node, start),
        status_since_s=0.0,
        identity=an_identity(node, incarnation=incarnation),
        offer=an_offer(node, usable_bytes=usable) if offer is None else offer,
        network=None,
        link=a_link() if link is None else link,
        rtt=an_rtt(rtt_ms) if rtt is None else rtt,
        last_contact_age_s=0.1,
        record_age_s=1.0,
    )


def a_view(
    *nodes: NodeView,
    local: str = "a",
    generation: int = 1,
    at_s: float = 0.0,
    rtt: Mapping[tuple[NodeId, NodeId], RttFigure] | None = None,
) -> MeshView:
    """A view of these nodes from `local`, whose own entry has no link and no RTT, as membership shows it."""
    own = node_id(local)
    shown = {node.node: replace(node, link=None, rtt=None) if node.node == own else node for node in nodes}
    return MeshView(MESH, own, generation, at_s, shown, rtt or {})


def a_confirm(node: NodeView, *, usable_bytes: int | None = None, stage_control: bool = True) -> Confirm:
    """What `node` answers when asked: what it offers, or `usable_bytes` on its first device."""
    assert node.offer is not None
    figures = tuple(
        DeviceFigure(device.id, device.usable_bytes if usable_bytes is None else usable_bytes, device.reserved_bytes)
        for device in node.offer.devices
    )
    model = next((model for model in node.offer.models if model.ref == MODEL), None)
    return Confirm(
        nonce=1,
        devices=figures,
        host_usable_bytes=node.offer.host_usable_bytes,
        draining=node.offer.draining,
        stage_control=stage_control,
        cached_bytes=None if model is None else model.cached_bytes,
        missing_bytes=None if model is None else model.missing_bytes,
        manifest=None if model is None else model.manifest,
    )
