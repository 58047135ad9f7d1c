"""One frame of `meshnode top`, made from the parts of the picture: lines that fit a terminal of any size.

What lives here: `Picture` and `frame`, pure functions of what is known. What does not: the terminal, its keys and the
connection (`meshnode.cli.top`). Each line is cut to the width, and each list to the rows that are left, saying how many
more there are; at 80 columns and 24 rows everything that matters is on the first view.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from meshnode.cli.output import LEAST_ESTIMATE_MS, gigabytes, printable, rtt

Json = dict[str, Any]

VIEWS: Final = {"o": "overview", "r": "RTT", "e": "events"}
MOST_EVENTS: Final = 500
_ID: Final = re.compile(r"\b[a-z2-7]{10}(?:[a-z2-7]{42})?\b")
_ORDER: Final = {"alive": 0, "suspect": 1, "dead": 2, "left": 3}
_STATUS_STYLES: Final = {"alive": "green", "suspect": "yellow", "connecting": "yellow", "dead": "red", "left": "dim"}
_LEVEL_STYLES: Final = {"debug": "dim", "info": "green", "warning": "yellow", "error": "red"}
_PHASE_STYLES: Final = {"running": "green", "stage": "green", "short": "red", "no_source": "red", "below_quorum": "red"}
_HEAT: Final = ((1.0, "green"), (10.0, "yellow"), (100.0, "dark_orange"), (float("inf"), "red"))


@dataclass
class Picture:
    """What is known so far. `lost_since`: since when the node does not answer; None while it does."""

    parts: dict[str, Any] = field(default_factory=dict)
    events: deque[Json] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS))
    lost_since: datetime | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every part has come."""
        return {"node", "mesh", "peers", "rtt", "splits", "asked", "verdicts"} <= self.parts.keys()

    def take(self, content: Json) -> None:
        """One message of `/v1/live`."""
        if "part" in content:
            self.parts[content["part"]] = content["value"]
        elif "events" in content:
            self.events.extend(content["events"])


def frame(picture: Picture, width: int, height: int, *, view: str = "o", now: datetime, ascii_only: bool) -> list[Text]:
    """At most `height` lines of at most `width` cells."""
    lines = _Frame(picture, width, ascii_only)
    lines.head(now)
    if picture.is_whole:
        body = {"o": lines.overview, "r": lines.rtt, "e": lines.events}[view]
        body(max(1, height - len(lines.made) - 1))
    else:
        lines.add("waiting for the node's first picture", "dim")
    keys = "   ".join(f"{key} {name}" for key, name in VIEWS.items() if key != view)
    shown = lines.made[: height - 1]
    shown += [Text()] * (height - 1 - len(shown))
    return [*shown, Text(_cut(f"q quit   {keys}", width), style="dim")]


class _Frame:
    def __init__(self, picture: Picture, width: int, ascii_only: bool) -> None:
        self._parts = picture.parts
        self._events = picture.events
        self._lost = picture.lost_since
        self._width = width
        self._ascii = ascii_only
        self.made: list[Text] = []
        peers = picture.parts.get("peers", ())
        self._names = {peer["node"]: printable(peer["name"]) for peer in peers}
        self._names |= {peer["short"]: printable(peer["name"]) for peer in peers}

    # --- lines ---

    def add(self, text: str | Text, style: str = "") -> None:
        """One line, cut to the width."""
        line = Text(text, style=style) if isinstance(text, str) else text
        line.truncate(self._width, overflow="crop" if self._ascii else "ellipsis")
        self.made.append(line)

    def _title(self, text: str) -> None:
        self.made.append(Text())
        self.add(text, "bold")

    def _list(self, lines: list[Text], room: int, what: str) -> None:
        """As many of `lines` as there is room for; the last says how many more there are."""
        fits = lines if len(lines) <= room else lines[: max(0, room - 1)]
        for line in fits:
            self.add(line)
        if len(fits) < len(lines) and room > 0:
            self.add(f"and {len(lines) - len(fits)} more {what}", "dim")

    def head(self, now: datetime) -> None:
        """Who is asked, whether it answers, and the mesh in one line."""
        node, mesh = self._parts.get("node"), self._parts.get("mesh")
        state = Text("live", style="green")
        if self._lost is not None:
            state = Text(f"NOT ANSWERING since {self._lost:%H:%M:%S}, trying again", style="bold red")
        name = "" if node is None else f"{printable(node['name'])} {node['short']} {node['role']}  "
        draining = Text("draining  ", style="yellow") if node is not None and node["draining"] else ""
        self.add(Text.assemble(("meshnode  ", "bold"), name, draining, f"{now:%H:%M:%S}  ", state))
        if mesh is not None:
            self.add(self._mesh_line(mesh))

    def _mesh_line(self, mesh: Json) -> str:
        nodes = ", ".join(f"{count} {name}" for name, count in mesh["nodes"].items() if count or name == "alive")
        links = ", ".join(f"{count} {name}" for name, count in mesh["links"].items() if count or name == "direct")
        declared = " (declared in it)" if mesh["declared"] else ""
        used, usable = gigabytes(mesh["reserved_bytes"]), gigabytes(mesh["usable_bytes"])
        return f"nodes {nodes}; links {links}; memory {used} used of {usable}{declared}"

    # --- the first view ---

    def overview(self, room: int) -> None:
        """Nodes with their memory, splits, who stands out, what happened."""
        out = [each for each in self._parts["verdicts"] if each["verdict"] != "participant"]
        splits = self._split_lines()
        rest = min(len(splits), 6) + min(len(out), 4) + 3 + 3 * 2
        self._title(self._columns())
        self._list(self._peer_lines(), max(3, room - rest - 2), "nodes")
        self._title("Splits")
        self._list(splits, 6, "lines")
        if out:
            self._title("Not used, and what to do")
            self._list([self._out_line(each) for each in out], 4, "nodes")
        left = room + 2 - len(self.made)
        if left >= 3:
            self._title("Events")
            loud = [event for event in self._events if event["level"] != "debug"]
            self._list([self._event_line(event) for event in reversed(loud[-max(1, left - 2) :])], left - 2, "events")

    def _columns(self) -> str:
        name, bar, with_id, with_path = self._sizes()
        start = f"{'ID':<11}" if with_id else ""
        path = f"{'PATH':<8} " if with_path else ""
        memory = f"{'MEMORY':<{bar}} " if bar else ""
        return f"{start}{'NODE':<{name}} {'STATUS':<10} {'RTT':>9} {path}{memory}USED/USABLE"

    def _sizes(self) -> tuple[int, int, bool, bool]:
        """Cells for the name and for the bar, and whether the id and the path are shown. Where it is narrow the path
        goes, then the bar: the figures stay."""
        with_id, with_path = self._width >= 100, self._width >= 80
        spare = self._width - 80 - (11 if with_id else 0) + (0 if with_path else 9)
        bar = 12 + min(28, spare // 2) if spare > 0 else 12 + spare
        return 16 + min(14, max(0, spare) // 2), bar if bar >= len("MEMORY") else 0, with_id, with_path

    def _peer_lines(self) -> list[Text]:
        peers = [peer for peer in self._parts["peers"] if peer["self"] or peer["status"] != "left"]
        return [self._peer_line(peer) for peer in sorted(peers, key=lambda each: _ORDER[each["status"]])]

    def _peer_line(self, peer: Json) -> Text:
        name_cells, bar_cells, with_id, with_path = self._sizes()
        link, status = peer["link"], peer["status"]
        if peer["connecting"] and link is None and status == "alive":
            status = "connecting"
        name = (printable(peer["name"]) or peer["short"]) + (" *" if peer["self"] else "")
        figure = "" if peer["self"] else rtt(peer["rtt"])
        path = "" if link is None else link["path"]
        return Text.assemble(
            (f"{peer['short']} ", "dim") if with_id else "",
            (_fit(name, name_cells) + " ", "bold" if peer["self"] else ""),
            (f"{status:<10} ", _STATUS_STYLES[status]),
            f"{figure:>9} ",
            (f"{path:<8} ", "yellow" if path == "relayed" else "") if with_path else "",
            *self._memory(peer, bar_cells),
        )

    def _memory(self, peer: Json, cells: int) -> list[Text | str]:
        offer = peer["offer"]
        if peer["role"] == "client":
            return ["client"]
        if offer is None:
            return ["unknown"]
        devices = offer["devices"]
        usable = sum(device["usable_bytes"] for device in devices)
        used = sum(device["reserved_bytes"] for device in devices)
        marks = [
            "declared" if any(device["declared"] for device in devices) else "",
            "draining" if offer["draining"] else "",
        ]
        bar: list[Text | str] = [self._bar(used, usable, self._largest(), cells), " "] if cells else []
        figures = f"{used / 1e9:.1f}/{gigabytes(usable)}"
        return [*bar, figures, *(f" {mark}" for mark in marks if mark)]

    def _largest(self) -> int:
        offers = [peer["offer"] for peer in self._parts["peers"] if peer["offer"] and peer["role"] != "client"]
        return max((sum(device["usable_bytes"] for device in offer["devices"]) for offer in offers), default=0)

    def _bar(self, used: int, usable: int, largest: int, cells: int) -> Text:
        whole = round(cells * usable / largest) if largest else 0
        whole = max(1, whole) if usable else 0
        full = min(whole, round(whole * used / usable)) if usable else 0
        full_cell, free_cell = ("#", "-") if self._ascii else ("█", "░")
        return Text.assemble((full_cell * full, "blue"), (free_cell * (whole - full), "cyan"), " " * (cells - whole))

    # --- splits ---

    def _split_lines(self) -> list[Text]:
        lines: list[Text] = []
        for split in self._parts["splits"]:
            run = split.get("run")
            loading = f" {self._named(run['progress'])}" if run else ""
            phase = split["phase"].replace("_", " ") + loading
            model = printable(split["model"])
            lines.append(Text.assemble((model, "bold"), " ", (phase, _PHASE_STYLES.get(split["phase"], "yellow"))))
            if split["phase"] == "stage":
                span = f"layers {split['layer_start']}-{split['layer_end'] - 1}"
                lines.append(Text(f"  {span} here, {gigabytes(split['reserved_bytes'])}"))
            lines += self._result_lines(split.get("result"))
        if not lines:
            for asked in self._parts["asked"][:1]:
                lines.append(Text(f"none; asked lately: {printable(asked['model'])}"))
                lines += self._result_lines(asked["result"])
        return lines or [Text("none", style="dim")]

    def _result_lines(self, result: Json | None) -> list[Text]:
        if not result:
            return []
        if result["result"] == "plan":
            stages = [
                f"{self._name(stage['node'])} {stage['layer_start']}-{stage['layer_end'] - 1}"
                for stage in result["stages"]
            ]
            prediction = result["prediction"]
            speed = "speed unknown" if prediction is None else f"{prediction['tokens_per_s']:.1f} tokens/s predicted"
            return [Text("  " + (" | " if self._ascii else " → ").join(stages)), Text(f"  {speed}", style="dim")]
        if result["result"] == "shortfall":
            first = next(iter(result["remedies"]), None)
            help_line = "  nothing that was tried helps" if first is None else f"  would help: {first['asks']}"
            return [Text(f"  {_short_by(result)}", style="red"), Text(self._named(help_line))]
        return [Text(f"  {printable(str(result.get('message', result['result'])))}", style="red")]

    def _out_line(self, verdict: Json) -> Text:
        style = "yellow" if verdict["verdict"] == "pending" else "red"
        name = _fit(self._name(verdict["node"]), 14)
        return Text.assemble(f"{name} ", (verdict["reason"], style), f" {self._named(verdict['advice'])}")

    # --- the other views ---

    def rtt(self, room: int) -> None:
        """The matrix: `~` estimated, `?` few samples yet, `-` unknown."""
        grid = self._parts["rtt"]
        cells = 7
        fits = max(1, min(len(grid["nodes"]), (self._width - 15) // cells))
        self._title("RTT in ms, from row to column; ~ estimated, ? few samples yet, - unknown")
        columns = "".join(f"{_fit(self._name(node), cells - 1):>{cells}}" for node in grid["nodes"][:fits])
        self.add(f"{'':<14} {columns}", "dim")
        rows = [
            Text.assemble(f"{_fit(self._name(node), 14)} ", *self._rtt_cells(grid, at, fits, cells))
            for at, node in enumerate(grid["nodes"])
        ]
        hidden = len(grid["nodes"]) - fits
        self._list(rows, room - 3 - (1 if hidden else 0), "nodes")
        if hidden:
            self.add(f"{hidden} more columns; a wider terminal shows them, or `meshnode ui`", "dim")

    def _rtt_cells(self, grid: Json, row: int, fits: int, cells: int) -> list[tuple[str, str]]:
        found = []
        for value, kind in list(zip(grid["min_ms"][row], grid["kinds"][row], strict=True))[:fits]:
            if value is None:
                found.append((f"{'.' if kind == '=' else '-':>{cells}}", "dim"))
                continue
            style = next(style for limit, style in _HEAT if value <= limit)
            figure = f"{value:.1f}" if value < 100 else f"{value:.0f}"
            if kind == "e":
                figure = "~<5" if value < LEAST_ESTIMATE_MS else f"~{figure}"
            found.append((f"{'?' if kind == 'u' else ''}{figure}".rjust(cells), style))
        return found

    def events(self, room: int) -> None:
        """The newest first, quiet ones included."""
        self._title("Events")
        self._list([self._event_line(event) for event in reversed(self._events)], room - 2, "events")

    def _event_line(self, event: Json) -> Text:
        at = datetime.fromisoformat(event["timestamp"]).astimezone()
        skipped = {"id", "timestamp", "level", "event"}
        fields = " ".join(
            f"{name}={self._field(name, value)}"
            for name, value in event.items()
            if name not in skipped and value not in (None, "", [])
        )
        style = _LEVEL_STYLES[event["level"]]
        return Text.assemble((f"{at:%H:%M:%S} ", "dim"), (f"{event['event']} ", style), fields[: 4 * self._width])

    def _field(self, name: str, value: object) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(self._field(name, each) for each in value) + "]"
        if name.endswith("_bytes") and isinstance(value, int):
            return gigabytes(value)
        return self._named(str(value)).replace("\n", " ")

    # --- names ---

    def _name(self, node: str) -> str:
        return self._names.get(node) or node[:10]

    def _named(self, text: str) -> str:
        return printable(_ID.sub(lambda found: self._names.get(found[0]) or found[0][:10], text))


def _short_by(report: Json) -> str:
    needs = f"needs {gigabytes(report['required_bytes'])}, there is {gigabytes(report['available_bytes'])}"
    if report["kind"] == "aggregate":
        return f"{needs}: short by {gigabytes(report['short_by_bytes'])}"
    return f"{needs}, but {report['short_layers']} of {report['layers']} layers find no place"


def _fit(text: str, cells: int) -> str:
    """`text` in exactly so many cells, whatever its letters take."""
    return set_cell_size(text, cells)


def _cut(text: str, cells: int) -> str:
    return text if cell_len(text) <= cells else set_cell_size(text, cells)
