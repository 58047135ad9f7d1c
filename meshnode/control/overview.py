"""The whole picture in one answer, for whoever shows it live: the page and `meshnode top`.

What lives here: `overview_of` and the brief shapes it is made of. What does not: following it (`meshnode.control.live`)
and the full shapes for scripts (`meshnode.control.shapes`).

A picture is made of parts, each sent again only when it changed. So nothing in it grows with time alone: no ages, no
uptime. It is bounded too: RTT figures of at most `MAX_GRID` nodes, `MAX_MODELS` models, and a list of holders is a
count where it could grow with models times nodes.
"""

from __future__ import annotations

from typing import Final

from meshnode.control.shapes import Json, device_of, in_order, mesh_models_of, summary_of, who_is
from meshnode.control.surface import ControlSurface
from meshnode.membership.view import MeshView, NodeView, RttFigure, RttSource, Status
from proto.ids import NodeId

MAX_GRID: Final = 128
"""Nodes in the RTT grid: 16,384 figures, about 80 KB of JSON."""
MAX_MODELS: Final = 200
_OF_STATUS: Final = (
    "node", "short", "name", "role", "version", "pid", "incarnation", "listen", "addresses", "state_directory",
    "keeps_root_key", "draining", "unreadable_models",
)  # fmt: skip


def overview_of(surface: ControlSurface) -> dict[str, object]:
    """Every part by its name."""
    view = surface.view()
    status = surface.status()
    nodes = in_order(view)
    return {
        "node": {name: status.get(name) for name in _OF_STATUS},
        "mesh": summary_of(view) | {"generation": None},
        "peers": [_peer(node, view) for node in nodes],
        "rtt": _grid(view, [node for node in nodes if node.status in (Status.ALIVE, Status.SUSPECT)]),
        "models": _models(view, surface.models()),
        "splits": [split for split in surface.splits() if not _is_own_stage(split, view.local)],
        "asked": surface.asked(),
        "verdicts": surface.verdicts(),
    }


def _is_own_stage(split: Json, local: NodeId) -> bool:
    """What a coordinator holds itself is part of the split that it is shown to run; it may be host memory alone."""
    return bool(split.get("phase") == "stage" and split["coordinator"] == local)


def _peer(node: NodeView, view: MeshView) -> Json:
    identity, link = node.identity, node.link
    return {
        **who_is(node, view),
        "software": identity.software if identity else None,
        "addresses": list(identity.addresses) if identity else [],
        "connecting": node.connecting,
        "link": None if link is None else {"path": link.path.value, "address": link.address, "carrier": link.carrier},
        "rtt": _rtt(node.rtt),
        "offer": _offer(node),
    }


def _rtt(figure: RttFigure | None) -> Json | None:
    if figure is None:
        return None
    estimated = figure.source is RttSource.ESTIMATED
    return {"min_ms": round(figure.min_ms, 2), "estimated": estimated, "corroborated": figure.corroborated}


def _offer(node: NodeView) -> Json | None:
    offer = node.offer
    if offer is None:
        return None
    return {
        "devices": [device_of(device) for device in offer.devices],
        "host_usable_bytes": offer.host_usable_bytes,
        "willingness": offer.willingness.value,
        "draining": offer.draining,
        "interested_in": None if offer.interested_in is None else list(offer.interested_in),
        "inventory_known": offer.inventory_known,
    }


def _grid(view: MeshView, nodes: list[NodeView]) -> Json:
    """RTTs as rows of milliseconds (null where unknown), and as one word per row whose letters say what each is:
    `m` measured here, `r` reported by the pair, `e` estimated, `u` measured or reported and not yet corroborated,
    `-` unknown, `=` the node itself."""
    shown = [node.node for node in nodes[:MAX_GRID]]
    rows: list[list[float | None]] = []
    kinds: list[str] = []
    for source in shown:
        figures = [None if target == source else view.rtt.get((source, target)) for target in shown]
        rows.append([None if figure is None else round(figure.min_ms, 2) for figure in figures])
        kinds.append("".join("=" if t == source else _kind(f) for t, f in zip(shown, figures, strict=True)))
    return {"nodes": shown, "min_ms": rows, "kinds": kinds, "left_out": max(0, len(nodes) - MAX_GRID)}


def _kind(figure: RttFigure | None) -> str:
    if figure is None:
        return "-"
    if figure.source is RttSource.ESTIMATED:
        return "e"
    if not figure.corroborated:
        return "u"
    return "m" if figure.source is RttSource.MEASURED else "r"


def _models(view: MeshView, answer: Json) -> Json:
    found = mesh_models_of(view)
    return {
        "models": [
            {
                "ref": model["ref"],
                "is_profile": model["is_profile"],
                "wanted_by": model["wanted_by"],
                "complete_at": model["complete_at"],
                "partly_at": sum(1 for holder in model["holders"] if _holds_a_part(holder)),
            }
            for model in found[:MAX_MODELS]
        ],
        "left_out": max(0, len(found) - MAX_MODELS),
        "profiles": answer.get("profiles", []),
    }


def _holds_a_part(holder: Json) -> bool:
    return bool(holder["cached_bytes"]) and not holder["complete"]
