"""Who may have a tunnel to an engine.

What lives here: `engine_admission`. What does not: who is a member (the path is authenticated before a request is
heard), what a worker holds (`meshnode.split.reservation`).

An engine trusts whoever speaks to it with the machine, so the rule is narrow: the coordinator of the plan whose stage
this worker holds now, committed, and nobody else. A plan that was replaced, given back or lapsed is not held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshnode.split.reservation import Held
from meshnode.tunnel.granting import Admit
from meshnode.tunnel.opening import Opening
from proto.ids import NodeId


def engine_admission(held: Callable[[], Iterable[Held]]) -> Admit:
    """The rule, over what this worker holds at the moment of asking."""

    def admit(peer: NodeId, opening: Opening) -> str | None:
        fence = opening.fence
        if fence is None:
            return "a tunnel to an engine needs the fence of its plan"
        if fence.coordinator != peer:
            return f"only the plan's coordinator may have one, which is {fence.coordinator}"
        stage = next((stage for stage in held() if stage.model == opening.model), None)
        if stage is None:
            return f"fenced: no stage of {opening.model[:100]} is held here"
        if stage.fence != fence:
            return f"fenced: generation {fence.generation} is not held here, but {stage.fence.generation}"
        return None if stage.committed else f"generation {fence.generation} is reserved here and not committed yet"

    return admit
