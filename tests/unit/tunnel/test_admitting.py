"""The rule for engines."""

from __future__ import annotations

import pytest
from making_links import an_identity

from meshnode.split import Held
from meshnode.tunnel import Opening, Purpose, engine_admission
from proto.messages import Fence

COORDINATOR, OTHER = an_identity().node, an_identity().node
MODEL = "llama"


def a_stage(generation: int = 3, *, committed: bool = True) -> Held:
    return Held(MODEL, Fence(generation, COORDINATOR), 0, 4, (), (), committed, 100.0)


def an_opening(fence: Fence | None, model: str = MODEL) -> Opening:
    return Opening(Purpose.ENGINE, model, fence, 1)


def test_coordinator_of_the_committed_stage_is_admitted() -> None:
    assert engine_admission(lambda: [a_stage()])(COORDINATOR, an_opening(Fence(3, COORDINATOR))) is None


@pytest.mark.parametrize(
    ("held", "peer", "opening", "why"),
    [
        ([a_stage()], COORDINATOR, an_opening(None), "needs the fence"),
        ([a_stage()], OTHER, an_opening(Fence(3, COORDINATOR)), "only the plan's coordinator"),
        ([a_stage()], OTHER, an_opening(Fence(3, OTHER)), "not held here"),
        ([a_stage(4)], COORDINATOR, an_opening(Fence(3, COORDINATOR)), "generation 3 is not held here, but 4"),
        ([a_stage()], COORDINATOR, an_opening(Fence(4, COORDINATOR)), "generation 4 is not held here, but 3"),
        ([a_stage()], COORDINATOR, an_opening(Fence(3, COORDINATOR), "gemma"), "no stage of gemma"),
        ([], COORDINATOR, an_opening(Fence(3, COORDINATOR)), "no stage of llama"),
        ([a_stage(committed=False)], COORDINATOR, an_opening(Fence(3, COORDINATOR)), "not committed yet"),
    ],
)
def test_everybody_else_is_told_why_not(held: list[Held], peer: str, opening: Opening, why: str) -> None:
    refusal = engine_admission(lambda: held)(peer, opening)  # type: ignore[arg-type]
    assert refusal is not None
    assert why in refusal
