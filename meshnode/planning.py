"""Plans and splits that are asked for over the control interface: one question, one answer, nothing reserved.

What lives here: `Questions`, behind `/v1/plan` and `POST /v1/splits`. What does not: who takes part
(`meshnode.readiness`), where layers go (`planner`, in a worker process), and models that are pursued for as long as the
node runs (`meshnode.splits`). Made by the node.

`split` streams JSON objects: `{"type": "progress", "event": ...}` for every `split.*` event while it waits, and last
`{"type": "result", ...}`, which is a plan, a shortfall, or `"result": "quorum_not_reached"` with the verdicts.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.abc
from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream

from meshnode.asking import asked_of, parse_wish
from meshnode.config import NodeConfig
from meshnode.control.shapes import Json
from meshnode.control.surface import ControlError
from meshnode.events import Event
from meshnode.inventory import Inventory, packages_of
from meshnode.membership.view import MeshView
from meshnode.mesh import Mesh
from meshnode.models import ModelFileError, PackageKind, load_model, sampled_manifest
from meshnode.models.package import ModelPackage
from meshnode.readiness import (
    Eligibility,
    InvalidRequest,
    Purpose,
    QuorumNotReached,
    SettleSettings,
    SplitRequest,
)
from meshnode.split import PlanAsked, PlanRefused, PlanResult, plan_now, wait_and_plan
from meshnode.split.planning import PlanJob, PlanOutcome, plan_in_worker
from planner import InvalidPlanInput, SplitPlan
from proto.ids import NodeId
from proto.parts import ModelOffer

PATIENCE_FIELDS = ("quorum", "dwell_s", "first_quorum_window_s", "deadline_s")
OTHER_FIELDS = frozenset({*PATIENCE_FIELDS, "force_split", "picture"})
MAX_AT_ONCE = 4
"""Questions answered at the same time; each may hold a worker process."""

OFFER_S = 5.0
"""Longest wait for the own offer to tell of a model; offers go out at most once a second."""

Steps = MemoryObjectSendStream["Json | ControlError"]


@dataclass(frozen=True)
class _Question:
    """What is asked of readiness and of the planner."""

    request: SplitRequest
    asked: PlanAsked
    force_split: bool


class Questions:
    """Answers questions about the mesh that this node is in. `tasks` outlives every single question."""

    def __init__(
        self,
        config: NodeConfig,
        mesh: Mesh,
        tasks: anyio.abc.TaskGroup,
        *,
        clock: Callable[[], float],
        emit: Callable[[Event], None],
        inventory: Inventory,
    ) -> None:
        self._config = config
        self._mesh = mesh
        self._tasks = tasks
        self._clock = clock
        self._emit = emit
        self._inventory = inventory
        self._slots = anyio.CapacityLimiter(MAX_AT_ONCE)

    def configure(self, config: NodeConfig) -> None:
        """Go by `config` for questions from now on."""
        self._config = config

    async def plan(self, fields: Json) -> Json:
        """The plan or shortfall for the mesh as it is now."""
        question = await self._question(fields, Purpose.PLAN)
        async with self._slots:
            result = await _planned(plan_now, self._mesh.view(), question.request, question.asked)
        answer: Json = result.to_dict()
        if fields.get("picture") is True and isinstance(result.outcome, SplitPlan):
            from planner.picture import plan_picture

            answer["picture"] = plan_picture(result.outcome)
        return answer

    async def split(self, fields: Json) -> AsyncIterator[Json]:
        """What happens while participants are waited for, and the answer. Closing the iterator ends the wait."""
        question = await self._question(fields, Purpose.RUN)
        send, receive = anyio.create_memory_object_stream["Json | ControlError"](math.inf)
        waiting = anyio.CancelScope()
        self._tasks.start_soon(self._wait, question, send, waiting)
        try:
            async with receive:
                async for step in receive:
                    if isinstance(step, ControlError):
                        raise step
                    yield step
        finally:
            waiting.cancel()

    async def _wait(self, question: _Question, send: Steps, waiting: anyio.CancelScope) -> None:
        def tell(event: Event) -> None:
            self._emit(event)
            send.send_nowait({"type": "progress", "event": event.name, **event.fields()})

        with waiting, send:
            try:
                async with self._slots:
                    ask = partial(wait_and_plan, force_split=question.force_split)
                    result = await _planned(ask, question.request, self._mesh, question.asked, self._clock, tell)
                send.send_nowait({"type": "result", **result.to_dict()})
            except QuorumNotReached as error:
                verdicts = error.snapshot.to_dict()
                step = {"type": "result", "result": "quorum_not_reached", "quorum": error.quorum, "message": str(error)}
                send.send_nowait(step | verdicts)
            except ControlError as error:
                send.send_nowait(error)

    # --- the question ---

    async def _question(self, fields: Json, purpose: Purpose) -> _Question:
        try:
            wish = parse_wish(fields, also=OTHER_FIELDS)
            # A model is known to the mesh by its name; here it may have a path that is in no model directory.
            here = self._inventory.find(wish.model)
            ref = wish.model if here is None else here.ref
            cache_dir = self._inventory.cache_dir
            package = await load_model(ref, cache_dir=cache_dir, model_dirs=self._config.model_dirs)
            manifest = None
            if purpose is Purpose.RUN:
                # Members with other files under this name must not take part.
                manifest = await to_thread.run_sync(lambda: sampled_manifest(package, cache_dir=cache_dir))
                if package.kind is not PackageKind.PROFILE and here is None:
                    await self._inventory.learn(ref)
                    await self._told_of(package.name)
            request = self._request(fields, package, purpose, manifest)
            asked = asked_of(wish, package, packages_of(self._inventory.entries))
            return _Question(request, asked, self._force_split(fields))
        except (InvalidPlanInput, InvalidRequest) as error:
            raise ControlError.bad_field(error.field, error.found, error.expected) from error
        except ModelFileError as error:
            raise ControlError(400, "model", str(error)) from error

    def _request(self, fields: Json, package: ModelPackage, purpose: Purpose, manifest: str | None) -> SplitRequest:
        patience = {field: fields.get(field, getattr(self._config, field)) for field in PATIENCE_FIELDS}
        for field, value in patience.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidRequest(field, value, "a number")
        return split_request(
            self._config,
            package,
            purpose,
            coordinator=self._coordinator(fields.get("coordinator")),
            manifest=manifest,
            settle=SettleSettings(pending_s=self._config.pending_s, **patience),
        )

    async def _told_of(self, model: str) -> None:
        """Returns once this node's own offer lists `model`, so that it is judged like any other holder."""
        with anyio.move_on_after(OFFER_S):
            view = self._mesh.view()
            while not any(offered.ref == model for offered in _own_models(view)):
                view = await self._mesh.newer_view(view)

    def _force_split(self, fields: Json) -> bool:
        """Whoever asks for a quorum wants more than the local node alone."""
        word = fields.get("force_split", self._config.force_split or "quorum" in fields)
        if not isinstance(word, bool):
            raise InvalidRequest("force_split", word, "true or false")
        return word

    def _coordinator(self, word: object) -> NodeId | None:
        """The node that `--coordinator` means: an id, the beginning of one, or a node's name."""
        if word is None:
            return None
        nodes = self._mesh.view().nodes
        found = [node for node in nodes if isinstance(word, str) and word and node.startswith(word)]
        found = found or [node for node, seen in nodes.items() if seen.identity and seen.identity.name == word]
        if len(found) != 1:
            raise InvalidRequest("coordinator", word, "one node of the mesh: its id, the beginning of it, or its name")
        return found[0]


def _own_models(view: MeshView) -> tuple[ModelOffer, ...]:
    offer = view.nodes[view.local].offer
    return () if offer is None else offer.models


def split_request(
    config: NodeConfig,
    package: ModelPackage,
    purpose: Purpose,
    *,
    coordinator: NodeId | None = None,
    manifest: str | None = None,
    settle: SettleSettings | None = None,
) -> SplitRequest:
    """What readiness is asked for `package` under the operator's config. Raises `InvalidRequest`."""
    return SplitRequest(
        model=package.name,
        purpose=purpose,
        is_profile=package.kind is PackageKind.PROFILE,
        manifest=manifest,
        coordinator=coordinator,
        settle=settle or settle_settings(config),
        eligibility=Eligibility(
            max_stage_rtt_ms=config.max_stage_rtt_ms,
            min_capacity_bytes=config.min_capacity,
            allow_relayed=config.allow_relayed,
            excluded_nodes=config.exclude,
        ),
    )


def settle_settings(config: NodeConfig) -> SettleSettings:
    """How patient the config is."""
    return SettleSettings(
        quorum=config.quorum,
        dwell_s=config.dwell_s,
        first_quorum_window_s=config.first_quorum_window_s,
        deadline_s=config.deadline_s,
        pending_s=config.pending_s,
    )


async def plan_or_refusal(job: PlanJob) -> PlanOutcome:
    """`plan_in_worker` for pursuits, which must outlive a planner that fails: that is a refusal with its reason."""
    try:
        return await plan_in_worker(job)
    except Exception as error:  # noqa: BLE001  # whatever went wrong there went wrong in another process
        return PlanRefused("planner", f"{type(error).__name__}: {error}"[:200], "a planning process that works")


async def _planned(make: Callable[..., object], *arguments: object) -> PlanResult:
    """`make(*arguments)`, its refusals as the control interface's error. Raises `ControlError`, `QuorumNotReached`."""
    try:
        result = await make(*arguments)  # type: ignore[misc]
    except (QuorumNotReached, ControlError):
        raise
    except Exception as error:  # whatever else goes wrong goes wrong in the planning process
        message = f"the planning process failed: {type(error).__name__}: {error}"[:500]
        raise ControlError(500, "planner", message, advice="see the node's log and report it") from error
    assert isinstance(result, PlanResult), "both ways of asking give one"
    if isinstance(result.outcome, PlanRefused):
        refused = result.outcome
        raise ControlError.bad_field(refused.field, refused.found, refused.expected)
    return result
