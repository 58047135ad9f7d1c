"""A node is removed: who may do it, who goes with it, who is kept.

What lives here: `RemovalPlan`, `plan_removal`, `sign_removal`. What does not: storing and spreading the result
(`meshnode.admission.revocation_store`, the daemon). Called by `meshnode.admission.admission`.

A removal cuts the node and everybody whose chain passes through it. Those to keep get a new credential in the same
breath, signed by the one who removes and carried inside the revocation, so that no moment exists in which a kept member
is out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshnode.admission.errors import MayNotRemove, UnknownNode
from meshnode.admission.issuing import Issuer
from meshnode.admission.roll import MemberRoll
from proto.credential import Lineage
from proto.ids import NodeId, short
from proto.revocation import MAX_KEPT, sign_revocation


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What a removal of `node` would do: `descendants` lose their membership with it unless they are kept."""

    node: NodeId
    descendants: tuple[NodeId, ...]
    issuer: Issuer
    lineage: Lineage | None
    """The node's own; None where the root removes a node that was never seen."""


def plan_removal(node: NodeId, roll: MemberRoll, issuers: Sequence[Issuer]) -> RemovalPlan:
    """The removal of `node`, signed by the first of `issuers` that may. Raises `MayNotRemove` or `UnknownNode`."""
    lineage = roll.lineage(node)
    for issuer in issuers:
        if issuer.lineage is None:
            return RemovalPlan(node, roll.descendants(node), issuer, lineage)
        if lineage is not None and issuer.lineage.node in lineage.nodes[:-1]:
            return RemovalPlan(node, roll.descendants(node), issuer, lineage)
    if lineage is None:
        raise UnknownNode(f"no member {short(node)} is known here", "see meshnode peers for those that are")
    raise MayNotRemove(node, lineage.nodes[:-1])


def sign_removal(plan: RemovalPlan, keep: Sequence[NodeId], roll: MemberRoll, now_unix_s: int) -> tuple[bytes, ...]:
    """The revocations that carry `plan` out and keep the descendants in `keep`: one, or more where one can't hold all
    that are kept. Raises `UnknownNode` for a node that is no descendant."""
    kept = [_kept_credential(node, plan, roll, now_unix_s) for node in dict.fromkeys(keep)]
    pages = [kept[start : start + MAX_KEPT] for start in range(0, len(kept), MAX_KEPT)] or [[]]
    token_id = None if plan.lineage is None else plan.lineage.last.token_id
    return tuple(
        sign_revocation(
            plan.issuer.signer,
            plan.issuer.mesh,
            plan.node,
            chain=_evidence(plan),
            made_at_unix_s=now_unix_s,
            token_ids=() if token_id is None else (token_id,),
            kept=page,
        )
        for page in pages
    )


def _evidence(plan: RemovalPlan) -> tuple[bytes, ...]:
    """The node's chain, through which its signer stands above it; the root needs none."""
    return () if plan.issuer.lineage is None or plan.lineage is None else plan.lineage.chain


def _kept_credential(node: NodeId, plan: RemovalPlan, roll: MemberRoll, now_unix_s: int) -> bytes:
    lineage = roll.lineage(node)
    if lineage is None or node not in plan.descendants:
        advice = "keep only nodes that the removal would take along"
        raise UnknownNode(f"{short(node)} does not descend from {short(plan.node)}", advice)
    own = lineage.last
    chain = plan.issuer.issue(
        node,
        own.role,
        may_invite=own.may_invite,
        now_unix_s=now_unix_s,
        expires_at_unix_s=own.expires_at_unix_s,
        token_id=own.token_id,
    )
    return chain[-1]
