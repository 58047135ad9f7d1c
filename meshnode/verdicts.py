"""Who would take part in a split now and who stands out, before any model is named.

What lives here: `general_verdicts`, for the page, `top` and whoever asks "why is this machine not used?". What does
not: the rules (`meshnode.readiness`), which are the same as for a split. Only what an owner chose per model is left
out: a node that lends itself for some models is no odd one out.
"""

from __future__ import annotations

from typing import Any

from meshnode.config import NodeConfig
from meshnode.membership.view import MeshView
from meshnode.readiness import (
    Eligibility,
    Excluded,
    Participant,
    Pending,
    Purpose,
    ReasonCode,
    SplitRequest,
    Verdict,
)
from meshnode.readiness.judge import judge_mesh
from meshnode.readiness.verdict import advice_for
from proto.parts import Willingness

ANY_MODEL = "any model"


def general_verdicts(view: MeshView, config: NodeConfig) -> list[dict[str, Any]]:
    """Plain JSON of one verdict per node, in node-id order: `verdict` is `participant`, `pending` or `excluded`, the
    latter two with `reason`, `found`, `required` and `advice`."""
    request = SplitRequest(
        model=ANY_MODEL,
        purpose=Purpose.PLAN,
        is_profile=True,
        eligibility=Eligibility(
            max_stage_rtt_ms=config.max_stage_rtt_ms,
            min_capacity_bytes=config.min_capacity,
            allow_relayed=config.allow_relayed,
            excluded_nodes=config.exclude,
        ),
    )
    return [_shown(verdict, view) for verdict in judge_mesh(view, request).values()]


def _shown(verdict: Verdict, view: MeshView) -> dict[str, Any]:
    if isinstance(verdict, Participant) or _is_choice(verdict, view):
        return {"node": verdict.node, "verdict": "participant"}
    advice = advice_for(verdict.reason, verdict.node, ANY_MODEL)
    kind = "pending" if isinstance(verdict, Pending) else "excluded"
    return {"verdict": kind, **verdict.to_dict(), "advice": advice}


def _is_choice(verdict: Pending | Excluded, view: MeshView) -> bool:
    """Whether its owner only named the models it is lent for."""
    offer = view.nodes[verdict.node].offer
    named = offer is not None and offer.willingness is not Willingness.NEVER
    return verdict.reason is ReasonCode.MISSING_MODEL_INTEREST and named
