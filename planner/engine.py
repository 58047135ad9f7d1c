"""Engine profiles: topology, where the endpoints lie, what is pipelined, what is charged.

Lives here: `EngineProfile` and the two profiles, `LLAMA_CPP_RPC` and `CHAIN`. Not here: running an engine
(`meshnode.engine`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from planner.errors import InvalidPlanInput


class Topology(enum.StrEnum):
    """`star`: every boundary goes through the coordinator. `chain`: stages pass activations to each other."""

    STAR = "star"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """How an engine lays out and runs a split.

    `embedding_on_host`: the token embedding lies in the coordinator's host memory (checked against its host budget) and
    not on a device. `charges_compute`: compute buffers are charged per stage. `pipelined`: several lanes are in flight
    at once, so throughput is bound by the slowest stage. `needs_package`: the coordinator must hold the whole package.
    `stage_overhead_ns`: fixed cost per token of a stage that is not on the coordinator.
    """

    name: str
    topology: Topology
    embedding_on_host: bool
    charges_compute: bool
    pipelined: bool
    needs_package: bool
    stage_overhead_ns: int = 0


LLAMA_CPP_RPC: Final = EngineProfile(
    name="llama_cpp_rpc",
    topology=Topology.STAR,
    embedding_on_host=True,
    charges_compute=True,
    pipelined=False,
    needs_package=True,
    stage_overhead_ns=150_000,
)
CHAIN: Final = EngineProfile(
    name="chain",
    topology=Topology.CHAIN,
    embedding_on_host=False,
    charges_compute=False,
    pipelined=True,
    needs_package=False,
)
ENGINES: Final = {profile.name: profile for profile in (LLAMA_CPP_RPC, CHAIN)}


def engine_named(engine: str) -> EngineProfile:
    """The profile of that name, or `InvalidPlanInput`."""
    if engine not in ENGINES:
        raise InvalidPlanInput("engine", engine, "one of " + ", ".join(ENGINES))
    return ENGINES[engine]
