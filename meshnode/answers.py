"""The daemon's answers to the control interface.

What lives here: `Answers`, the daemon's `ControlSurface`. What does not: HTTP (`meshnode.control`), invites and
removals (`meshnode.control.members`), planning and splits (`meshnode.split`). Made by the node, which owns everything
it reads.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import psutil

from meshnode import __version__
from meshnode.admission import Admission
from meshnode.config import NodeConfig
from meshnode.config.as_json import config_json
from meshnode.control.approvals import Approvals
from meshnode.control.members import Members
from meshnode.control.metrics import EventCounts, Figures, metrics_text
from meshnode.control.shapes import Json, mesh_models_of, summary_of
from meshnode.control.surface import ControlError
from meshnode.events import Event
from meshnode.keeping import Keeper
from meshnode.membership.view import MeshView
from meshnode.mesh import Mesh
from meshnode.models import profile_names
from meshnode.offers import capacity_json
from meshnode.planning import Questions
from meshnode.splits import Splits
from meshnode.transport.counters import Counters
from meshnode.tunnel import Tunnels
from meshnode.verdicts import general_verdicts
from proto.ids import short
from proto.parts import Role
from proto.versions import OURS

MAX_ASKED = 8
"""Models whose newest answer is kept for whoever looks later."""

Examine = Callable[[NodeConfig], Awaitable[Json]]
"""Looks at this node and its paths under a config (`meshnode.doctor`)."""


class Answers:
    """See `ControlSurface` for each method."""

    def __init__(
        self,
        config: NodeConfig,
        admission: Admission,
        mesh: Mesh,
        keeper: Keeper,
        splits: Splits,
        tunnels: Tunnels,
        questions: Questions,
        counters: Counters,
        events: EventCounts,
        *,
        examine: Examine,
        bound: tuple[str, ...],
        role: Role,
        name: str,
        emit: Callable[[Event], None],
    ) -> None:
        self._config = config
        self._admission = admission
        self._mesh = mesh
        self._keeper = keeper
        self._splits = splits
        self._tunnels = tunnels
        self._questions = questions
        self._counters = counters
        self._events = events
        self._examine = examine
        self._bound = bound
        self._role = role
        self._name = name
        self._started_s = time.monotonic()
        self._asked: dict[str, Json] = {}
        self._approvals = Approvals(admission, emit=emit)
        self._members = Members(
            admission, view=mesh.view, addresses=lambda: keeper.addresses, spread=mesh.spread, emit=emit
        )

    def configure(self, config: NodeConfig) -> None:
        """Go by `config` from now on."""
        self._config = config
        self._questions.configure(config)

    def status(self) -> Json:
        """Node, mesh, addresses, uptime and the mesh in a few figures."""
        node = self._admission.identity.node
        return {
            "node": node,
            "short": short(node),
            "name": self._name,
            "role": self._role.value,
            "version": __version__,
            "protocol": {"lowest": str(OURS.lowest), "highest": str(OURS.highest)},
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "incarnation": self._mesh.incarnation,
            "listen": list(self._bound),
            "addresses": list(self._keeper.addresses),
            "state_directory": str(self._config.state_dir),
            "keeps_root_key": self._admission.keeps_root,
            "draining": self._keeper.draining,
            "mesh": summary_of(self._mesh.view()),
            "splits": self.splits(),
            "engine": self._splits.engine_word,
            "api": self._splits.api_address,
            "api_problem": self._splits.api_problem,
            "tunnels": self._tunnels.status(),
            "unreadable_models": self._keeper.inventory.unreadable(),
        }

    def config(self) -> Json:
        """The configuration in force: every key with its value."""
        return config_json(self._config)

    def view(self) -> MeshView:
        """The newest view."""
        return self._mesh.view()

    def capacity(self) -> Json:
        """What this machine gives, with the survey's findings."""
        if self._keeper.capacity is None:
            raise ControlError(503, "not_yet", "this machine has not been looked at yet", advice="ask again soon")
        return capacity_json(self._keeper.capacity, reserved=self._splits.reserved(), client=self._role is Role.CLIENT)

    def models(self) -> Json:
        """Models that members name, and the profiles at hand here."""
        return {"models": mesh_models_of(self._mesh.view()), "profiles": list(profile_names())}

    def splits(self) -> list[Json]:
        """Splits that this node pursues or holds stages of."""
        return self._splits.status()

    def metrics(self) -> str:
        """Figures in Prometheus' text format."""
        times = os.times()
        figures = Figures(
            view=self._mesh.view(),
            version=__version__,
            uptime_s=time.monotonic() - self._started_s,
            is_ready=self.readiness()[0],
            is_draining=self._keeper.draining,
            events=self._events,
            traffic=self._counters,
            splits=self.splits(),
            verdicts=self.verdicts(),
            tunnels=self._tunnels.status(),
            process=(times.user + times.system, psutil.Process().memory_info().rss),
        )
        return metrics_text(figures)

    def readiness(self) -> tuple[bool, str]:
        """Ready once the machine was looked at; a mesh of one is a mesh."""
        return self._keeper.capacity is not None, "waiting for a first look at this machine"

    # --- invites and removal ---

    def invites(self) -> list[Json]:
        """Tokens this node issued, without the tokens themselves."""
        return self._members.invites()

    async def create_invite(self, request: Json) -> Json:
        """A new token."""
        return self._members.create_invite(request)

    async def revoke_invite(self, token_id: str) -> Json:
        """Make a token worthless."""
        return self._members.revoke_invite(token_id)

    def approvals(self) -> Json:
        """Nodes that ask to be let in without a token, and for how long they are listened to."""
        return self._approvals.shown()

    async def approve(self, request: Json) -> Json:
        """Open or close the desk for such nodes, or decide on the one with certain words."""
        return self._approvals.act(request)

    async def remove_node(self, request: Json) -> Json:
        """Remove a node and every chain through it, or tell what that would take along."""
        return self._members.remove(request)

    async def doctor(self, request: Json) -> Json:
        """This node examined: findings with their grades, and what is known of the path to each peer."""
        if request:
            raise ControlError.bad_field("body", sorted(request), "no fields")
        return await self._examine(self._config)

    async def drain(self, request: Json) -> Json:
        """Take no new stages on this node, or take them again."""
        draining = request.get("draining", True)
        if not isinstance(draining, bool) or request.keys() - {"draining"}:
            raise ControlError.bad_field("draining", request, "true or false, and nothing else")
        self._keeper.drain(draining)
        return {"node": self._admission.identity.node, "draining": draining}

    async def plan(self, request: Json) -> Json:
        """A plan or a shortfall for the mesh as it is now; reserves nothing."""
        answer = await self._questions.plan(request)
        self._remember(request, answer)
        return answer

    async def split(self, request: Json) -> AsyncIterator[Json]:
        """Wait for participants and plan: progress, then one entry of type `result`."""
        # A reader that goes ends the wait at once, and not when this generator is collected.
        async with aclosing(cast("AsyncGenerator[Json]", self._questions.split(request))) as steps:
            async for step in steps:
                if step["type"] == "result":
                    self._remember(request, {name: value for name, value in step.items() if name != "type"})
                yield step

    def asked(self) -> list[Json]:
        """The newest answer for each of the models asked for last, the newest first."""
        return list(reversed(self._asked.values()))

    def _remember(self, request: Json, answer: Json) -> None:
        model = str(answer.get("model", request.get("model")))
        self._asked.pop(model, None)
        self._asked[model] = {"model": model, "at_unix_s": int(time.time()), "result": answer}
        if len(self._asked) > MAX_ASKED:
            del self._asked[next(iter(self._asked))]

    def verdicts(self) -> list[Json]:
        """Of every node: whether it would take part in a split now, else why not and what to do, whatever the model."""
        return general_verdicts(self._mesh.view(), self._config)
