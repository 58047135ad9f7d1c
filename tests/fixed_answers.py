"""A daemon that knows fixed answers, for tests of the way that questions and answers take."""

from __future__ import annotations

from collections.abc import AsyncIterator

from meshnode.config import NodeConfig
from meshnode.control.shapes import Json
from meshnode.control.surface import ControlError
from meshnode.membership.view import MeshView
from meshnode.verdicts import general_verdicts
from proto.ids import MeshId, NodeId


class FixedAnswers:
    """See `ControlSurface`."""

    def __init__(self) -> None:
        self.ready = True
        self.pursued: list[Json] = []
        self.told: Json = {"node": "n"}
        self.planned: Json = {}
        self.seen = MeshView(MeshId("m"), NodeId("n"), 0, 0.0, {}, {})

    def status(self) -> Json:
        return self.told

    def config(self) -> Json:
        return {"quorum": 2}

    def view(self) -> MeshView:
        return self.seen

    def capacity(self) -> Json:
        return {}

    def models(self) -> Json:
        return {"models": [], "profiles": ["known"]}

    def splits(self) -> list[Json]:
        return self.pursued

    def asked(self) -> list[Json]:
        return []

    def verdicts(self) -> list[Json]:
        return general_verdicts(self.seen, NodeConfig())

    def metrics(self) -> str:
        return "meshnode_links 2\n"

    def readiness(self) -> tuple[bool, str]:
        return self.ready, "waiting for a link"

    def invites(self) -> list[Json]:
        raise ControlError(409, "not_allowed", "this node may not invite")

    async def create_invite(self, request: Json) -> Json:
        return {"echo": request}

    async def revoke_invite(self, token_id: str) -> Json:
        return {"token_id": token_id}

    def approvals(self) -> Json:
        return {"open_for_s": 0.0, "requests": []}

    async def approve(self, request: Json) -> Json:
        return {"echo": request}

    async def remove_node(self, request: Json) -> Json:
        raise ControlError.bad_field("node", request.get("node"), "a node of the mesh")

    async def drain(self, request: Json) -> Json:
        return {"draining": request["draining"]}

    async def doctor(self, request: Json) -> Json:
        return {"findings": []}

    async def plan(self, request: Json) -> Json:
        return self.planned

    async def split(self, request: Json) -> AsyncIterator[Json]:
        yield {"type": "waiting"}
        raise ControlError(409, "gone", "the mesh is gone")
