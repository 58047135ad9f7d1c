"""The JSON of the control interface, made from a mesh view: one shape for scripts, tables and the page.

What lives here: pure functions from `MeshView` and its parts to plain dictionaries. What does not: HTTP
(`meshnode.control.app`) and printing (`meshnode.cli`). Unknown figures are null, never 0; an RTT always says where it
comes from, a capacity whether it was declared.
"""

from __future__ import annotations

from typing import Any, Final

from meshnode.membership.view import LinkFacts, MeshView, NodeView, PathKind, RttFigure, RttSource, Status
from proto.ids import short
from proto.parts import DeviceOffer, ModelOffer, OfferPart

Json = dict[str, Any]
_ORDER: Final = {Status.ALIVE: 0, Status.SUSPECT: 1, Status.LEFT: 2, Status.DEAD: 3}


def in_order(view: MeshView) -> list[NodeView]:
    """Every node known: the local one first, then by liveness, then by id."""
    return sorted(view.nodes.values(), key=lambda node: (node.node != view.local, _ORDER[node.status], node.node))


def peers_of(view: MeshView) -> list[Json]:
    """Every node known, with everything known of it."""
    return [peer_of(node, view) for node in in_order(view)]


def who_is(node: NodeView, view: MeshView) -> Json:
    """What every shape of a node begins with: which one it is, and whether it lives."""
    return {
        "node": node.node,
        "short": short(node.node),
        "name": node.identity.name if node.identity else "",
        "self": node.node == view.local,
        "role": node.role.value,
        "status": node.status.value,
    }


def peer_of(node: NodeView, view: MeshView) -> Json:
    """One node with everything known of it."""
    identity = node.identity
    return {
        **who_is(node, view),
        "status_since_s": _age(view.at_s - node.status_since_s),
        "incarnation": node.incarnation,
        "addresses": list(identity.addresses) if identity else [],
        "software": identity.software if identity else None,
        "engine": identity.engine if identity else None,
        "connecting": node.connecting,
        "link": link_of(node.link, view.at_s),
        "rtt": rtt_of(node.rtt),
        "last_contact_age_s": _age(node.last_contact_age_s),
        "record_age_s": _age(node.record_age_s),
        "offer": offer_of(node.offer),
    }


def link_of(link: LinkFacts | None, at_s: float) -> Json | None:
    """The local node's link to a node; null where there is none."""
    if link is None:
        return None
    return {
        "path": link.path.value,
        "address": link.address,
        "dialled_by_us": link.dialled_by_us,
        "up_s": _age(at_s - link.up_since_s),
        "carrier": link.carrier,
    }


def rtt_of(figure: RttFigure | None) -> Json | None:
    """An RTT in milliseconds with its source; null where nothing is known."""
    if figure is None:
        return None
    return {
        "min_ms": round(figure.min_ms, 3),
        "smoothed_ms": round(figure.smoothed_ms, 3),
        "variation_ms": None if figure.variation_ms is None else round(figure.variation_ms, 3),
        "samples": figure.samples,
        "age_s": _age(figure.age_s),
        "corroborated": figure.corroborated,
        "source": figure.source.value,
        "estimated": figure.source is RttSource.ESTIMATED,
        "error": None if figure.error is None else round(figure.error, 3),
    }


def offer_of(offer: OfferPart | None) -> Json | None:
    """What a node gives; null while its offer is unknown."""
    if offer is None:
        return None
    return {
        "capacity_bytes": sum(device.capacity_bytes for device in offer.devices),
        "usable_bytes": sum(device.usable_bytes for device in offer.devices),
        "reserved_bytes": sum(device.reserved_bytes for device in offer.devices),
        "declared": any(device.declared for device in offer.devices),
        "host_usable_bytes": offer.host_usable_bytes,
        "host_declared": offer.host_declared,
        "devices": [device_of(device) for device in offer.devices],
        "models": [model_of(model) for model in offer.models],
        "willingness": offer.willingness.value,
        "draining": offer.draining,
        "interested_in": None if offer.interested_in is None else list(offer.interested_in),
        "inventory_known": offer.inventory_known,
        "artifact_transfer": offer.artifact_transfer,
    }


def device_of(device: DeviceOffer) -> Json:
    """One device as offered."""
    return {
        "id": device.id,
        "kind": device.kind,
        "name": device.name,
        "capacity_bytes": device.capacity_bytes,
        "usable_bytes": device.usable_bytes,
        "reserved_bytes": device.reserved_bytes,
        "memory_bandwidth_bytes_per_s": device.memory_bandwidth_bytes_per_s,
        "bandwidth_source": device.bandwidth_source,
        "declared": device.declared,
    }


def model_of(model: ModelOffer) -> Json:
    """One model as a node sees it; byte figures are null while its inventory is unknown."""
    return {
        "ref": model.ref,
        "manifest": model.manifest,
        "wanted": model.wanted,
        "complete": model.complete,
        "cached_bytes": model.cached_bytes,
        "missing_bytes": model.missing_bytes,
        "fetched": [
            {
                "source": each.source,
                "manifest": each.manifest,
                "layer_start": each.layer_start,
                "layer_end": each.layer_end,
            }
            for each in model.fetched
        ],
        "is_profile": model.is_profile,
    }


def rtt_matrix_of(view: MeshView) -> Json:
    """The RTT between all pairs for which a figure exists, directed; pairs that are missing are unknown."""
    pairs = sorted(view.rtt.items())
    return {
        "nodes": [node.node for node in view.alive()],
        "pairs": [{"from": source, "to": target, **(rtt_of(figure) or {})} for (source, target), figure in pairs],
    }


def mesh_models_of(view: MeshView) -> list[Json]:
    """Every model that an alive node names, with who wants it and who holds all of it."""
    found: dict[str, Json] = {}
    for node in view.alive():
        for model in node.offer.models if node.offer else ():
            entry = found.setdefault(model.ref, {"ref": model.ref, "wanted_by": [], "complete_at": [], "holders": []})
            entry["is_profile"] = entry.get("is_profile", True) and model.is_profile
            if model.wanted:
                entry["wanted_by"].append(node.node)
            if model.complete:
                entry["complete_at"].append(node.node)
            entry["holders"].append({"node": node.node, **model_of(model)})
    return [found[ref] for ref in sorted(found)]


def summary_of(view: MeshView) -> Json:
    """The mesh in a few figures: nodes by status, links by path, capacity of the alive workers."""
    alive = view.alive()
    offers = [offer_of(node.offer) for node in alive]
    known = [offer for offer in offers if offer is not None]
    others = [node for node in view.nodes.values() if node.node != view.local]
    return {
        "mesh": view.mesh,
        "generation": view.generation,
        "nodes": {status.value: sum(1 for node in view.nodes.values() if node.status is status) for status in Status},
        "links": {
            kind.value: sum(1 for node in others if node.link is not None and node.link.path is kind)
            for kind in PathKind
        },
        "capacity_bytes": sum(offer["capacity_bytes"] for offer in known),
        "usable_bytes": sum(offer["usable_bytes"] for offer in known),
        "reserved_bytes": sum(offer["reserved_bytes"] for offer in known),
        "declared": any(offer["declared"] for offer in known),
        "unknown_offers": len(offers) - len(known),
    }


def _age(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 3)
