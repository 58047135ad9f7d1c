"""A plan for machines that a file describes: no node, no mesh, the same planner.

What lives here: `plan_offline`. What does not: the file's shape (`planner.files`), printing (`meshnode.cli.plan`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshnode.asking import asked_of, parse_wish
from meshnode.config import NodeConfig
from meshnode.models import ModelFileError, ModelPackage, load_model_blocking, neighbours, resolve_ref
from meshnode.readiness.reasons import TABLE as REASONS
from meshnode.split.planning import PlanJob, PlanRefused, plan_here
from planner import Exclusion, InvalidPlanInput, SplitPlan
from planner.files import MeshDescription, parse_nodes


def plan_offline(fields: Mapping[str, Any], nodes_file: Path, *, picture: bool, config: NodeConfig) -> dict[str, Any]:
    """The plan's or shortfall's JSON for the wish in `fields`, with `picture` (SVG) if asked for and there is a plan.

    `config` says where models are that are called by their names, and where results of reading them are kept.
    Raises `InvalidPlanInput` for a wrong wish or nodes file, `ModelFileError` for the model, `OSError` for the file.
    """
    wish = parse_wish(fields)
    mesh = _mesh_in(nodes_file)
    coordinator = wish.constraints.coordinator or mesh.coordinator
    cache_dir = config.state_dir / "models"
    model = load_model_blocking(wish.model, cache_dir=cache_dir, model_dirs=config.model_dirs)
    others = _beside(_file_of(wish.model, config.model_dirs), cache_dir)
    asked = replace(asked_of(wish, model, others), constraints=replace(wish.constraints, coordinator=coordinator))
    outcome = plan_here(PlanJob(asked, mesh.nodes, mesh.links, mesh.excluded))
    if isinstance(outcome, PlanRefused):
        raise InvalidPlanInput(outcome.field, outcome.found, outcome.expected)
    answer: dict[str, Any] = outcome.to_dict()
    if picture and isinstance(outcome, SplitPlan):
        from planner.picture import plan_picture

        answer["picture"] = plan_picture(outcome)
    return answer


def _file_of(ref: str, model_dirs: Sequence[Path]) -> str:
    """The file that `ref` led to."""
    return str(resolve_ref(ref, model_dirs=model_dirs).paths[0])


def _beside(file: str, cache_dir: Path) -> Iterator[ModelPackage]:
    """Other files of the model beside its own; one that can't be read is none."""
    for other in neighbours(file):
        with suppress(ModelFileError):
            yield load_model_blocking(other, cache_dir=cache_dir)


def _mesh_in(nodes_file: Path) -> MeshDescription:
    try:
        table = tomllib.loads(nodes_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidPlanInput(str(nodes_file), "a file that can't be read as such", f"valid TOML: {error}") from error
    mesh = parse_nodes(table)
    if not mesh.nodes:
        raise InvalidPlanInput("node", "only excluded ones", "at least one [[node]] that is not excluded")
    return replace(mesh, excluded=tuple(_advised(each) for each in mesh.excluded))


def _advised(exclusion: Exclusion) -> Exclusion:
    """With the advice that the mesh gives for its reason, where the file gives none and the reason is one of ours."""
    row = next((row for row in REASONS if row.code == exclusion.reason), None)
    if row is None or exclusion.advice is not None:
        return exclusion
    return replace(exclusion, advice=row.advice.format(node=exclusion.node_id, model="the model"))
