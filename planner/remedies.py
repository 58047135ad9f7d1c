"""What would help: changes that were re-planned, never canned.

Lives here: which changes and combinations are looked at, and in which order they are shown. Not here: the changes
themselves (`planner.changes`), exact byte figures (`planner.enough`, `planner.sizing`).

Every single change is shown: sufficient, or with how many bytes of the gap it closes. Combinations are shown where they
are minimal: sufficient, while no part of them is. Whatever is called sufficient was planned. Figures are the least (a
context: the most) that suffices: one step beyond does not plan, as far as the planner can tell (where it searched
without a proof, `details` say `exact: false`).

Order: sufficient before not, one change before several, then by how little is asked of the operator (`RemedyAction`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Final

from planner.changes import (
    AdmitPeer,
    Change,
    FewerLanes,
    QuantiseCache,
    ShortenContext,
    SmallerFile,
    apply_changes,
)
from planner.constraints import Exclusion
from planner.dispatch import can_plan
from planner.memory import CELL_PADDING, MemoryNeed, memory_need
from planner.nodes import Willingness
from planner.request import PlanRequest
from planner.shortfall import Remedy, RemedyAction, ShortfallKind
from planner.sizing import room_remedies
from planner.workload import CacheType

_RANK: Final = {action: rank for rank, action in enumerate(RemedyAction)}
_MOST_COMBINATIONS: Final = 6
_MOST_PARTED: Final = 5
"""Changes of which every part is planned; of more, only those without one of them."""


def remedies_for(
    request: PlanRequest, kind: ShortfallKind, binds: Sequence[Change], gap_bytes: int
) -> tuple[Remedy, ...]:
    """Every remedy found for a request that has no plan. `binds`: changes that lift the constraint that binds.

    Where a constraint binds and not memory, changes that only free some bytes are no help and are left out.
    """
    search = _Search(request, gap_bytes)
    singles = [search.judged((change,)) for change in (*binds, *_single_changes(request, search))]
    if kind is ShortfallKind.CONSTRAINT:
        found = [remedy for remedy in singles if remedy.sufficient]
        if len(binds) > 1 and not any(search.suffices((change,)) for change in binds):
            found += [together] if (together := search.judged(search.smallest_part(tuple(binds)))).sufficient else []
    else:
        rooms = [search.judged((change,), exact) for change, exact in room_remedies(request)]
        found = [*singles, *rooms, *search.combined(tuple(change for each in singles for change in each.changes))]
    return tuple(sorted(found, key=_asked_order))


def excluded_of(request: PlanRequest) -> tuple[Exclusion, ...]:
    """Everybody left out: peers excluded before planning, and nodes that are never willing to hold a stage."""
    unwilling = [
        Exclusion(
            node.id,
            node.stageless_reason or "operator_excluded",
            found=None if node.stageless_reason else "willing = never",
            required=None if node.stageless_reason else "willing = always or when_needed",
            advice=None if node.stageless_reason else "let it take work when needed",
            node=node if node.devices else None,
        )
        for node in request.nodes
        if node.willingness is Willingness.NEVER and (node.devices or node.stageless_reason)
    ]
    return (*request.excluded, *unwilling)


def _asked_order(remedy: Remedy) -> tuple[bool, int, int, int, str]:
    """`ADD_NODE` is the most that one change can ask; a combination of lesser changes comes before it."""
    several = len(remedy.changes) if remedy.action is RemedyAction.COMBINE else 1
    dear = remedy.action is RemedyAction.ADD_NODE
    rank = max(_RANK[change.action] for change in remedy.changes)
    return (
        not remedy.sufficient,
        99 if dear else several,
        rank,
        -remedy.closes_bytes * (not remedy.sufficient),
        remedy.asks,
    )


# --- single changes -------------------------------------------------------------------------------------------------


def _single_changes(request: PlanRequest, search: _Search) -> list[Change]:
    found: list[Change] = []
    if (shorter := search.longest_context(())) is not None:
        found.append(shorter)
    found += _cache_changes(request, search)
    if (lanes := _lanes_change(request, search)) is not None:
        found.append(lanes)
    found += [AdmitPeer(each) for each in excluded_of(request) if each.node is not None and each.node.usable_bytes]
    found += _smaller_file(request, search)
    return found


def _cache_changes(request: PlanRequest, search: _Search) -> list[Change]:
    """The KV cache in q8_0, and in q4_0 where that is not enough; without flash attention only K can be quantised."""
    workload, found = request.workload, list[Change]()
    for kind in (CacheType.Q8_0, CacheType.Q4_0):
        v_type = kind if workload.flash_attention else workload.v_type
        changed = replace(request, workload=replace(workload, k_type=kind, v_type=v_type))
        saves = _need(request).kv_prefix[-1] - _need(changed).kv_prefix[-1]
        if saves <= 0:
            continue
        change = QuantiseCache(kind, v_type, saves)
        found.append(change)
        if search.suffices((change,)):
            break
    return found


def _lanes_change(request: PlanRequest, search: _Search) -> Change | None:
    """The most lanes that plan; one lane where it only helps; nothing where lanes free no bytes."""
    before = request.workload.lanes
    if before == 1 or search.closes((FewerLanes(1, before),)) == 0:
        return None
    return search.most_lanes(()) or FewerLanes(1, before)


def _smaller_file(request: PlanRequest, search: _Search) -> list[Change]:
    """The largest known file that suffices, or else the smallest."""
    smaller = sorted(request.smaller_files, key=lambda model: -model.file_bytes)
    smaller = [model for model in smaller if model.file_bytes < request.model.file_bytes]
    enough = next((model for model in smaller if search.suffices((SmallerFile(model),))), None)
    return [SmallerFile(model) for model in ([enough] if enough is not None else smaller[-1:])]


# --- judging and combining ------------------------------------------------------------------------------------------


class _Search:
    """One request's answers, each change or combination planned at most once."""

    def __init__(self, request: PlanRequest, gap_bytes: int) -> None:
        self._request = request
        self._gap = gap_bytes
        self._known: dict[tuple[Change, ...], bool] = {}

    def suffices(self, changes: tuple[Change, ...]) -> bool:
        """Whether a plan exists after `changes`."""
        if changes not in self._known:
            self._known[changes] = can_plan(apply_changes(self._request, changes))
        return self._known[changes]

    def closes(self, changes: tuple[Change, ...]) -> int:
        """Bytes by which less is required or more is there after `changes`; at most the gap, where there is one."""
        after = apply_changes(self._request, changes)
        less = _need(self._request).split_bytes - _need(after).split_bytes
        more = _offered(after) - _offered(self._request)
        return min(max(0, less + more), self._gap or 1 << 62)

    def judged(self, changes: tuple[Change, ...], exact: bool = True) -> Remedy:
        """The remedy made of `changes`."""
        details: dict[str, Any] = dict(changes[0].details)
        action = changes[0].action
        if len(changes) > 1:
            action = RemedyAction.COMBINE
            details = {"parts": [{"action": change.action.value, **change.details} for change in changes]}
        if not exact:
            details["exact"] = False
        asks = " and ".join(change.asks for change in changes)
        return Remedy(action, asks, self.closes(changes), self.suffices(changes), details, changes)

    def longest_context(self, others: tuple[Change, ...]) -> ShortenContext | None:
        """The longest shorter context that plans together with `others`."""
        before = self._request.workload.context or 0
        most = last_true(
            (before - 1) // CELL_PADDING,
            lambda cells: cells > 0 and self.suffices((*others, ShortenContext(cells * CELL_PADDING, before))),
        )
        return ShortenContext(most * CELL_PADDING, before) if most else None

    def most_lanes(self, others: tuple[Change, ...]) -> FewerLanes | None:
        """The most lanes, fewer than now, that plan together with `others`."""
        before = self._request.workload.lanes
        most = last_true(before - 1, lambda lanes: lanes > 0 and self.suffices((*others, FewerLanes(lanes, before))))
        return FewerLanes(most, before) if most else None

    def combined(self, singles: tuple[Change, ...]) -> list[Remedy]:
        """Minimal sufficient combinations of changes none of which suffices alone, smallest first.

        A context and a number of lanes count as their least while it is sought what is needed at all; what they may
        stay at is told afterwards.
        """
        partial = [change for change in singles if not self.suffices((change,))]
        peers = sorted(
            (change for change in partial if isinstance(change, AdmitPeer)),
            key=lambda change: (-change.node.usable_bytes, change.node.id),
        )
        levers = [change for change in partial if not isinstance(change, AdmitPeer)]
        if not any(isinstance(change, ShortenContext) for change in singles):
            levers += self._least_context()
        found: list[tuple[Change, ...]] = []
        for base in _compatible(levers):
            if _has_part(base, found) or (changes := self._with_peers(base, peers)) is None:
                continue
            if not _has_part(smallest := self.smallest_part(changes), found):
                found.append(smallest)
        minimal = [changes for changes in found if not _has_part(changes, [each for each in found if each != changes])]
        return [self.judged(self._relaxed(changes)) for changes in sorted(minimal, key=len)[:_MOST_COMBINATIONS]]

    def _least_context(self) -> list[Change]:
        before = self._request.workload.context or 0
        return [ShortenContext(CELL_PADDING, before)] if before > CELL_PADDING else []

    def _with_peers(self, base: tuple[Change, ...], peers: list[AdmitPeer]) -> tuple[Change, ...] | None:
        """`base` and as few peers as suffice: by the exchange argument the largest; a single one the smallest."""
        if base and self.suffices(base):
            return base
        fewest = first_true(len(peers), lambda count: self.suffices((*base, *peers[:count])))
        if fewest == 1:
            return next((*base, peer) for peer in reversed(peers) if self.suffices((*base, peer)))
        return (*base, *peers[:fewest]) if fewest else None

    def smallest_part(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """The smallest part that suffices. Of many changes only those that can be left out one by one are."""
        if len(changes) <= _MOST_PARTED:
            parts = (part for size in range(2, len(changes)) for part in combinations(changes, size))
            return next((part for part in parts if self.suffices(part)), changes)
        for change in changes:
            rest = tuple(each for each in changes if each != change)
            changes = rest if self.suffices(rest) else changes
        return changes

    def _relaxed(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        """The same changes with the longest context and then the most lanes that still suffice."""
        for kind in (ShortenContext, FewerLanes):
            others = tuple(change for change in changes if not isinstance(change, kind))
            if len(others) < len(changes):
                most = self.longest_context(others) if kind is ShortenContext else self.most_lanes(others)
                changes = changes if most is None else (*others, most)
        return changes


def _compatible(changes: Sequence[Change]) -> Iterator[tuple[Change, ...]]:
    """Subsets with at most one change of each kind, smallest first."""
    for size in range(len(changes) + 1):
        for chosen in combinations(changes, size):
            if len({change.action for change in chosen}) == size:
                yield chosen


def _has_part(changes: tuple[Change, ...], found: Sequence[tuple[Change, ...]]) -> bool:
    return any(all(change in changes for change in part) for part in found)


def last_true(highest: int, holds: Callable[[int], bool]) -> int:
    """The largest number in 1..highest that holds, for a property that holds up to some point; 0 where none does."""
    low, high = 0, highest
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def first_true(highest: int, holds: Callable[[int], bool]) -> int:
    """The least number in 1..highest that holds, for a property that holds from some point on; 0 where none does."""
    if highest < 1 or not holds(highest):
        return 0
    low, high = 1, highest
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _need(request: PlanRequest) -> MemoryNeed:
    return memory_need(request.model, request.workload, request.engine)


def _offered(request: PlanRequest) -> int:
    return sum(node.usable_bytes for node in request.workers)
