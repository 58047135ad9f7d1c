"""The compiled problem: everything a solver works on, in plain integers.

Lives here: `Instance`, its exact predicates (`fits`, `reach`, `lo`) and the exact cost of a list of placements. Not
here: how it is made from specs (`planner.compiling`), nor any search. Called by every solver; solvers see nothing else.

Definitions, with n devices (the units of placement) and L layers, all ranges half-open:

- Bytes do not depend on the device, only its `usable_bytes` do. Stage [p, q) on any device takes
  `layer_prefix_bytes[q] - layer_prefix_bytes[p] + endpoint + compute`, where
  endpoint = `whole_bytes` if p = 0 and q = L, else `first_bytes` if p = 0, else `last_bytes` if q = L, else 0, and
  compute = `compute_bytes[p == 0][q == L]`.
  Guaranteed: compute grows (weakly) in each flag and whole_bytes >= first_bytes, last_bytes. Hence `reach` is monotone
  in p and in usable bytes, and the top-k rule holds: if k devices can hold the model, the k largest can.
- Each device is used at most once. A node may appear several times, with different devices, adjacent or not.
- Times are in `timing`, absent (None) from a capacity-only instance. Time of [p, q) on v =
  `fixed_ns[v] + cost_prefix_ns[v][q] - cost_prefix_ns[v][p]`, plus `head_ns[v]` if q = L.
- Hops: the token enters at the coordinator: `entry_ns[first]`; it returns: `exit_ns[last]`; between neighbours
  `hop(u, v)`: 0 within a node; else, in a star, `exit_ns[u] + entry_ns[v]` (so order costs nothing as long as nodes
  have one device each); in a chain `hop_ns[u][v]`, directed. Hops do not depend on the boundary (one hidden size per
  model). None is a pair about which nothing is known: such a hop must not be used.
- Latency = sum of stage times + entry + hops + exit.
- Bottleneck (pipelined throughput) = max over stages of their time and over hops used of `transfer(u, v)` (how long the
  activations occupy the link), entry and exit transfers included.
- Unpinned chains: dispatch makes one instance per eligible coordinator, with `first_devices` = the devices of that node
  (the token enters where the first stage is), and calls the solver once for each, best bound first, with `cutoff_ns`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.solution import Placement

MaybeNs = int | None
"""Nanoseconds, or None: unknown, so not to be used."""


@dataclass(frozen=True, eq=False)
class Timing:
    """Integer nanoseconds of everything that takes time; tuples are indexed by device.

    `cost_prefix_ns` is n x (L+1), non-decreasing, 0 at 0. `entry_ns`/`exit_ns`: coordinator to device and back (0 on
    the coordinator, None unknown). `hop_ns` is n x n in a chain and None in a star (see `hop`). The `*_transfer_ns` are
    the link-occupying parts of the same hops (`transfer_rows_ns` None in a star).
    """

    node_of: tuple[int, ...]
    cost_prefix_ns: tuple[tuple[int, ...], ...]
    fixed_ns: tuple[int, ...]
    head_ns: tuple[int, ...]
    entry_ns: tuple[MaybeNs, ...]
    exit_ns: tuple[MaybeNs, ...]
    hop_ns: tuple[tuple[MaybeNs, ...], ...] | None
    entry_transfer_ns: tuple[int, ...]
    exit_transfer_ns: tuple[int, ...]
    transfer_rows_ns: tuple[tuple[int, ...], ...] | None

    def stage_ns(self, device: int, layer_start: int, layer_end: int) -> int:
        """Time of one stage, hops not included."""
        row = self.cost_prefix_ns[device]
        head = self.head_ns[device] if layer_end == len(row) - 1 else 0
        return self.fixed_ns[device] + row[layer_end] - row[layer_start] + head

    def hop(self, source: int, target: int) -> MaybeNs:
        """Cost of passing from device `source` to device `target`; None if unknown."""
        if self.node_of[source] == self.node_of[target]:
            return 0
        if self.hop_ns is not None:
            return self.hop_ns[source][target]
        out, back = self.exit_ns[source], self.entry_ns[target]
        return None if out is None or back is None else out + back

    def transfer(self, source: int, target: int) -> int:
        """How long one token's activations occupy the link between two devices; 0 within a node."""
        if self.node_of[source] == self.node_of[target]:
            return 0
        if self.transfer_rows_ns is not None:
            return self.transfer_rows_ns[source][target]
        return max(self.exit_transfer_ns[source], self.entry_transfer_ns[target])

    def latency_ns(self, placements: Sequence[Placement]) -> MaybeNs:
        """Exact latency of `placements` (assumed legal), None if it uses an unknown hop."""
        hops = [self.entry_ns[placements[0].device], self.exit_ns[placements[-1].device]]
        hops += [self.hop(a.device, b.device) for a, b in itertools.pairwise(placements)]
        known = [hop for hop in hops if hop is not None]
        if len(known) < len(hops):
            return None
        return sum(known) + sum(self.stage_ns(s.device, s.layer_start, s.layer_end) for s in placements)

    def bottleneck_ns(self, placements: Sequence[Placement]) -> MaybeNs:
        """Exact bottleneck of `placements` (assumed legal), None if it uses an unknown hop."""
        if self.latency_ns(placements) is None:
            return None
        busy = [self.entry_transfer_ns[placements[0].device], self.exit_transfer_ns[placements[-1].device]]
        busy += [self.transfer(a.device, b.device) for a, b in itertools.pairwise(placements)]
        return max(busy + [self.stage_ns(s.device, s.layer_start, s.layer_end) for s in placements])


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem: n devices, L layers. See the module's definitions; every tuple is indexed by device unless said.

    `labels`: (node id, device id), sorted ascending, so that a lower index is the winner of a tie. `node_of`: number of
    the device's node (devices of one node share it). `usable_bytes`: what a stage may fill.
    `timing` is None for a capacity-only instance, to which only `fewest` and `proportional` apply.
    `cut_allowed[p]` for 0 <= p <= L: False for forbidden boundaries; True at 0 and L. `min_stages`/`max_stages` count
    placements. `first_devices`: only these may take the first stage (None: any). `coordinator`: its node number, or
    None if it has no device here. `rows` remembers `reach_row` by usable bytes; instances that differ only in their
    devices may share it.
    """

    labels: tuple[tuple[str, str], ...]
    node_of: tuple[int, ...]
    usable_bytes: tuple[int, ...]
    layer_prefix_bytes: tuple[int, ...]
    first_bytes: int
    last_bytes: int
    whole_bytes: int
    compute_bytes: tuple[tuple[int, int], tuple[int, int]]
    cut_allowed: tuple[bool, ...]
    min_stages: int
    max_stages: int
    first_devices: frozenset[int] | None
    coordinator: int | None
    star: bool
    timing: Timing | None
    rows: dict[int, list[int]] = field(default_factory=dict, repr=False)

    @property
    def device_count(self) -> int:
        """n."""
        return len(self.labels)

    @property
    def layer_count(self) -> int:
        """L."""
        return len(self.layer_prefix_bytes) - 1

    def stage_bytes(self, layer_start: int, layer_end: int) -> int:
        """Bytes of the stage [layer_start, layer_end), endpoints and compute included."""
        first, last = layer_start == 0, layer_end == self.layer_count
        return (
            self.layer_prefix_bytes[layer_end]
            - self.layer_prefix_bytes[layer_start]
            + self.endpoint_bytes(layer_start, layer_end)
            + self.compute_bytes[first][last]
        )

    def endpoint_bytes(self, layer_start: int, layer_end: int) -> int:
        """Embedding and head bytes that lie with the stage."""
        first, last = layer_start == 0, layer_end == self.layer_count
        if first and last:
            return self.whole_bytes
        return self.first_bytes if first else self.last_bytes if last else 0

    def fits(self, device: int, layer_start: int, layer_end: int) -> bool:
        """Whether the device can hold the (non-empty) stage; cuts and order are not looked at."""
        return self.stage_bytes(layer_start, layer_end) <= self.usable_bytes[device]

    def reach(self, device: int, layer_start: int) -> int:
        """Furthest allowed end of a stage that starts at `layer_start` here; `layer_start` if not one layer fits.

        Forbidden cuts are respected at the end (the start is the caller's); `first_devices` is not looked at.
        """
        total = self.layer_count
        if layer_start >= total:
            return total
        if self.fits(device, layer_start, total):
            return total
        extra = (self.first_bytes if layer_start == 0 else 0) + self.compute_bytes[layer_start == 0][False]
        limit = self.layer_prefix_bytes[layer_start] + self.usable_bytes[device] - extra
        end = min(bisect.bisect_right(self.layer_prefix_bytes, limit) - 1, total - 1)
        while end > layer_start and not self.cut_allowed[end]:
            end -= 1
        return max(end, layer_start)

    def reach_row(self, device: int) -> list[int]:
        """`reach(device, p)` for every 0 <= p <= L. Do not change it: it is remembered."""
        usable = self.usable_bytes[device]
        if usable not in self.rows:
            self.rows[usable] = self._sweep(device)
        return self.rows[usable]

    def _sweep(self, device: int) -> list[int]:
        prefix, total = self.layer_prefix_bytes, self.layer_count
        room = self.usable_bytes[device] - self.compute_bytes[False][False]
        cuts = [p for p, allowed in enumerate(self.cut_allowed) if allowed and p < total]
        whole_from = max(1, self.lo(device, total))
        ends = [self.reach(device, 0)]
        for start in range(1, min(whole_from, total)):
            end = bisect.bisect_right(prefix, prefix[start] + room, start, total) - 1
            if end > start and len(cuts) < total:
                end = cuts[bisect.bisect_right(cuts, end) - 1]
            ends.append(max(end, start))
        return ends + [total] * (total + 1 - len(ends))

    def lo(self, device: int, layer_end: int) -> int:
        """Least p such that [p, layer_end) fits here, `layer_end` if none; ignores cuts. Monotone in the end."""
        low, high = 0, layer_end
        while low < high:
            middle = (low + high) // 2
            if self.fits(device, middle, layer_end):
                high = middle
            else:
                low = middle + 1
        return low

    def defect(self, placements: Sequence[Placement]) -> str | None:
        """Why `placements` is not a legal answer, or None: coverage, reuse, memory, cuts, stage count, first device."""
        if not placements:
            return "no placements"
        reached, used = 0, set[int]()
        for stage in placements:
            if stage.layer_start != reached or stage.layer_end <= stage.layer_start:
                return f"layers [{stage.layer_start},{stage.layer_end}) do not continue from {reached}"
            if stage.device in used:
                return f"device {self.labels[stage.device]} is used twice"
            if not self.fits(stage.device, stage.layer_start, stage.layer_end):
                return f"[{stage.layer_start},{stage.layer_end}) does not fit on {self.labels[stage.device]}"
            if not self.cut_allowed[stage.layer_end]:
                return f"boundary {stage.layer_end} is forbidden"
            reached = stage.layer_end
            used.add(stage.device)
        if reached != self.layer_count:
            return f"only {reached} of {self.layer_count} layers are placed"
        if not self.min_stages <= len(placements) <= self.max_stages:
            return f"{len(placements)} stages, wanted {self.min_stages} to {self.max_stages}"
        if self.first_devices is not None and placements[0].device not in self.first_devices:
            return f"{self.labels[placements[0].device]} may not be first"
        return None
