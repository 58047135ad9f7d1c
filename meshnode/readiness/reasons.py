"""Every reason why a node is pending or excluded, in one table: code, predicate, inputs, effect, advice.

What lives here: `ReasonCode`, `TABLE` and the reference page made from it. What does not: the predicates as code
(`meshnode.readiness.rules`, one rule per row, in this order). Codes are stable strings that scripts may rely on; those
that the field already uses keep its spelling (Mesh-LLM's exclusions).

The order is fixed and means something: first what makes a node no candidate at all, then what its owner decided, then
what it lacks, then how it is reached, then what it holds. The first row that excludes a node is its reason; a row that
only makes it pending gives way to any later one that excludes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ReasonCode(StrEnum):
    """Why a node does not take part (yet), in the order in which the rules are asked."""

    NOT_ALIVE = "not_alive"
    CLIENT = "client"
    OPERATOR_EXCLUDED = "operator_excluded"
    RECORD_STALE = "record_stale"
    STAGE_PROTOCOL_GENERATION = "stage_protocol_generation"
    ENGINE_MISSING = "engine_missing"
    DRAINING = "draining"
    MISSING_MODEL_INTEREST = "missing_model_interest"
    MISSING_VRAM = "missing_vram"
    BELOW_MIN_CAPACITY = "below_min_capacity"
    MISSING_STAGE_PATH = "missing_stage_path"
    STAGE_PATH_RELAY_ONLY = "stage_path_relay_only"
    STAGE_CONTROL_UNREACHABLE = "stage_control_unreachable"
    PACKAGE_MANIFEST_MISMATCH = "package_manifest_mismatch"
    MISSING_MODEL_SOURCE = "missing_model_source"
    STAGE_INVENTORY_EMPTY = "stage_inventory_empty"
    ARTIFACT_TRANSFER_UNAVAILABLE = "artifact_transfer_unavailable"
    RTT_UNMEASURED = "rtt_unmeasured"
    STAGE_PATH_TOO_SLOW = "stage_path_too_slow"


class Makes(StrEnum):
    """What a reason makes of a node."""

    EXCLUDED = "excluded"
    PENDING = "pending, then excluded"
    """Pending for at most `pending_s`; if nothing changed by then, excluded with the same code."""
    PENDING_THEN_UNKNOWN = "pending, then a participant with an unknown figure"
    """Pending for at most `pending_s`; then it takes part with the figure unknown, unless a limit needs the figure."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One row: the rule in words, what it looks at, what it makes of the node, and what its operator can do.

    `advice` may hold `{node}` (the short id) and `{model}`.
    """

    code: ReasonCode
    predicate: str
    inputs: str
    makes: Makes
    advice: str


TABLE: Final[tuple[Reason, ...]] = (
    Reason(
        ReasonCode.NOT_ALIVE,
        "the node is suspect, dead, or has left",
        "status",
        Makes.EXCLUDED,
        "start the node again, or check its network; it takes part as soon as it answers",
    ),
    Reason(
        ReasonCode.CLIENT,
        "the node's credential says `client`: it uses the mesh and gives no compute",
        "role (from the credential)",
        Makes.EXCLUDED,
        "to let it give compute, make a token with `meshnode invite --role worker` and join it again with that",
    ),
    Reason(
        ReasonCode.OPERATOR_EXCLUDED,
        "the coordinator's config lists the node under `exclude`",
        "node id, `exclude`",
        Makes.EXCLUDED,
        "take {node} out of `exclude` in the coordinator's config",
    ),
    Reason(
        ReasonCode.RECORD_STALE,
        "the node is alive, but its identity or offer has not arrived, or is of an earlier incarnation",
        "identity part, offer part, incarnation",
        Makes.PENDING,
        "its record has not come through; check that {node} reaches other members, or restart it",
    ),
    Reason(
        ReasonCode.STAGE_PROTOCOL_GENERATION,
        "the node's stage protocol is of another generation than the coordinator's",
        "stage protocol generation of both",
        Makes.EXCLUDED,
        "upgrade meshnode on the node with the lower generation",
    ),
    Reason(
        ReasonCode.ENGINE_MISSING,
        "a plan is to be carried out, and the node has no engine that the coordinator's engine can work with",
        "engine word (from its record): RPC version of both",
        Makes.EXCLUDED,
        "install the coordinator's version of llama.cpp on {node}; `meshnode status` there says what it found",
    ),
    Reason(
        ReasonCode.DRAINING,
        "the node is finishing its work and takes no new stages",
        "offer or confirmation: draining",
        Makes.EXCLUDED,
        "wait until it has restarted, or run `meshnode drain --cancel` on {node}",
    ),
    Reason(
        ReasonCode.MISSING_MODEL_INTEREST,
        "the node's owner does not lend it for this model: `interested_in` does not list it, or `willing` is `never`",
        "interested_in, willingness, model",
        Makes.EXCLUDED,
        "on {node}, add {model} to `interested_in` (or remove the list); `willing` must be `always` or `when_needed`",
    ),
    Reason(
        ReasonCode.MISSING_VRAM,
        "the node offers no memory of any kind: no GPU, no unified memory, no RAM",
        "offer: devices",
        Makes.EXCLUDED,
        "see `meshnode capacity` on {node} for what it found, or set `declare_usable` there",
    ),
    Reason(
        ReasonCode.BELOW_MIN_CAPACITY,
        "what is free on its devices (usable less reserved) is nothing, or less than `min_capacity`",
        "offer or confirmation: usable and reserved bytes, `min_capacity`",
        Makes.EXCLUDED,
        "free memory on {node} (or stop a split that holds it), or lower `min_capacity`",
    ),
    Reason(
        ReasonCode.MISSING_STAGE_PATH,
        "the coordinator has no link to the node, neither its own nor a relayed one; pending while it is connecting",
        "link, connecting",
        Makes.PENDING,
        "open UDP between the two machines, or set `advertise` on {node} to an address that others reach",
    ),
    Reason(
        ReasonCode.STAGE_PATH_RELAY_ONLY,
        "the node is reached only through another member, and `allow_relayed` is off",
        "link path, `allow_relayed`",
        Makes.EXCLUDED,
        "forward a UDP port to {node} and set `advertise` there, or set `allow_relayed` on the coordinator",
    ),
    Reason(
        ReasonCode.STAGE_CONTROL_UNREACHABLE,
        "asked directly for its figures, the node did not answer in time, or said that it can't serve stages",
        "confirmation",
        Makes.EXCLUDED,
        "look into the log of {node}; it is asked again by itself",
    ),
    Reason(
        ReasonCode.PACKAGE_MANIFEST_MISMATCH,
        "the node has other files under this model's name than the coordinator",
        "manifest of both",
        Makes.EXCLUDED,
        "replace the files of {model} on {node} with the coordinator's, or remove them there",
    ),
    Reason(
        ReasonCode.MISSING_MODEL_SOURCE,
        "the node lacks bytes of the model, and no alive worker holds the complete package",
        "inventories of all alive workers",
        Makes.PENDING,
        "put the complete files of {model} on one worker (`model_dirs`), or start the one that has them",
    ),
    Reason(
        ReasonCode.STAGE_INVENTORY_EMPTY,
        "the node holds nothing of the model and can't fetch it, or its inventory has not been read",
        "inventory: cached bytes, artifact transfer",
        Makes.PENDING,
        "copy {model} to {node} and name its directory in `model_dirs`",
    ),
    Reason(
        ReasonCode.ARTIFACT_TRANSFER_UNAVAILABLE,
        "the node holds a part of the model and can't fetch the rest",
        "inventory: missing bytes, artifact transfer",
        Makes.EXCLUDED,
        "copy the missing files of {model} to {node}, or allow transfers there",
    ),
    Reason(
        ReasonCode.RTT_UNMEASURED,
        "the RTT between coordinator and node is not corroborated: 2 samples over 5 s, the last fresher than 30 s",
        "RTT figure, `max_stage_rtt_ms`",
        Makes.PENDING_THEN_UNKNOWN,
        "wait for a second measurement; unset `max_stage_rtt_ms` to take nodes with an unknown RTT",
    ),
    Reason(
        ReasonCode.STAGE_PATH_TOO_SLOW,
        "the RTT is above `max_stage_rtt_ms` (off by default: RTT ranks nodes and excludes none)",
        "RTT figure, `max_stage_rtt_ms`",
        Makes.EXCLUDED,
        "connect {node} by cable, or raise `max_stage_rtt_ms`",
    ),
)
"""The rules in words, in the order in which they are asked."""

REASONS: Final = MappingProxyType({row.code: row for row in TABLE})
"""The same rows by code."""


def reasons_page() -> str:
    """The reference page `docs/reasons.md`, as Markdown."""
    lines = [
        "# Reason codes",
        "",
        "Made from the code (`meshnode/readiness/reasons.py`); `make docs` makes it anew.",
        "",
        "Before a model is split, every node the coordinator knows gets exactly one verdict: participant, pending or",
        "excluded. Pending and excluded carry one of these codes, what was found, what was required, and advice. Rules",
        "are asked in this order; the first that excludes a node is its reason. The local node is judged like any",
        "other. A node is pending for at most `pending_s` (10 s) per cause.",
        "",
        "| code | makes a node | when |",
        "|---|---|---|",
    ]
    lines += [f"| [`{row.code}`](#{row.code}) | {row.makes} | {row.predicate} |" for row in TABLE]
    for row in TABLE:
        lines += [
            "",
            f"## {row.code}",
            "",
            f"{row.predicate[0].upper()}{row.predicate[1:]}.",
            "",
            f"- makes a node: {row.makes}",
            f"- looks at: {row.inputs}",
            f"- advice: {row.advice.format(node='NODE', model='MODEL')}",
        ]
    return "\n".join(lines) + "\n"
