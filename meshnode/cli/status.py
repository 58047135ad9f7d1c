"""`meshnode status`: this node and its mesh in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from meshnode.cli.client import Json, client_of, json_option, node_options
from meshnode.cli.output import duration, gigabytes, node_text, print_json, printable
from meshnode.resources.sizes import amount

CAUSE_CHARACTERS = 100


@click.command(short_help="This node and its mesh in a few lines.")
@node_options
@json_option
def command(state_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """This node and its mesh in a few lines.

    \b
    Examples:
      meshnode status
      meshnode status --json | jq .mesh.nodes
    """
    client = client_of(state_dir, config_file)
    status = client.get("/v1/status")
    if as_json:
        print_json(status)
        return
    for label, text in _lines(status, client.names()):
        click.echo(f"{label:<11}{printable(text)}")


def _lines(status: Json, names: Mapping[str, str]) -> list[tuple[str, str]]:
    mesh = status["mesh"]
    name = f" ({status['name']})" if status["name"] else ""
    draining = ", draining: takes no new stages" if status.get("draining") else ""
    declared = " (declared figures in it, nothing measured those)" if mesh["declared"] else ""
    unknown = f", {mesh['unknown_offers']} not yet known" if mesh["unknown_offers"] else ""
    return [
        ("node", f"{status['short']}{name}, {status['role']}, up {duration(status['uptime_s'])}{draining}"),
        ("node id", status["node"]),
        ("mesh", mesh["mesh"]),
        ("listens on", ", ".join(status["listen"]) + f" (pid {status['pid']}, version {status['version']})"),
        ("answers at", ", ".join(status["addresses"]) or "no address known yet"),
        ("nodes", _counts(mesh["nodes"], "alive")),
        ("links", _counts(mesh["links"], "direct")),
        ("memory", f"{gigabytes(mesh['usable_bytes'])} usable in the mesh{declared}{unknown}"),
        (
            "splits",
            ", ".join(_split(split, names) for split in status["splits"] if not _is_own(split, status)) or "none",
        ),
        *((("engine", status["engine"] or "none: plans only"),) if "engine" in status else ()),
        *((("models at", status["api"]),) if status.get("api") else ()),
        *((("models at", f"no address: {status['api_problem']}"),) if status.get("api_problem") else ()),
        *_tunnels(status.get("tunnels"), names),
        *(("unreadable", each["problem"]) for each in status.get("unreadable_models", ())),
        ("state", status["state_directory"]),
    ]


def _tunnels(tunnels: Json | None, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """One line in all, and one for each peer and purpose that has some open; an earlier version's daemon has none."""
    if tunnels is None:
        return []
    port = tunnels["tcp_port"]
    taken = f"TCP port {port} or the link" if port is not None else "the link only"
    groups: dict[tuple[str, str, str], list[Json]] = {}
    for each in tunnels["open"]:
        groups.setdefault((each["peer"], each["purpose"], each["carrier"]), []).append(each)
    lines = [("tunnels", f"{len(tunnels['open'])} open, taken over {taken}")]
    for (peer, purpose, carrier), members in groups.items():
        sent, received = (amount(sum(each[f"{way}_bytes"] for each in members)) for way in ("sent", "received"))
        with_peer = f"with {node_text(peer, names)} over {carrier}"
        lines.append(("", f"{len(members)} for {purpose} {with_peer}: {sent} out, {received} in"))
    return lines


def _counts(counts: dict[str, int], always: str) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == always)


def _is_own(split: Json, status: Json) -> bool:
    """A coordinator's own layers are part of the model that it is shown to run."""
    return split["state"] == "stage" and bool(split["coordinator"] == status["node"])


def _split(split: Json, names: Mapping[str, str]) -> str:
    """`m: loading 42% of 0.2GB`, `m: layers 6-11 for mfrggzdfmz (attic)`, `m: short`."""
    model, run = split["model"], split.get("run") or {}
    if split["state"] == "stage":
        layers = f"layers {split['layer_start']}-{split['layer_end'] - 1}"
        return f"{model}: {layers} for {node_text(split['coordinator'], names)}"
    if split["state"] == "running" and run:
        return f"{model}: {run.get('progress') or run['state']}{_replanned(split)}"
    why = split.get("problem") or _shortfall(split)
    return f"{model}: {split['state'].replace('_', ' ')}" + (f" ({why})" if why else "")


def _shortfall(split: Json) -> str:
    """What is short, without who was counted with what; nothing where it was not that."""
    result = split.get("result") or {}
    return str(result["message"]).split("; ")[0] if result.get("result") == "shortfall" else ""


def _replanned(split: Json) -> str:
    """`, replanned: node is dead`, cut where a cause is long; nothing where it runs as it was first planned."""
    told = split.get("replanned")
    return "" if not told else f", replanned: {told['cause'][:CAUSE_CHARACTERS]}"
