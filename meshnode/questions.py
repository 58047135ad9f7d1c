"""Questions to single nodes that wait for their answer: a waiting split asks each candidate for its figures.

What lives here: `Questions`. What does not: what a node answers (`meshnode.confirming`), and the way there
(`meshnode.mesh`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio

from proto.ids import NodeId
from proto.messages import Confirm, ConfirmRequest, Message


class Questions:
    """Those that wait for an answer."""

    def __init__(self) -> None:
        self._asked: dict[tuple[NodeId, int], _Question] = {}

    async def ask(self, node: NodeId, model: str, send: Callable[[ConfirmRequest], None]) -> Confirm | None:
        """Ask `node` for its figures for `model`, in a message that `send` takes; None where the link ends first. The
        caller bounds the time."""
        question = _Question()
        request = ConfirmRequest(nonce=random.getrandbits(52), model=model)
        self._asked[node, request.nonce] = question
        try:
            send(request)
            await question.answered.wait()
        finally:
            self._asked.pop((node, request.nonce), None)
        return question.answer

    def answered(self, peer: NodeId, message: Message) -> None:
        """`peer` answers, maybe to no question of ours."""
        assert isinstance(message, Confirm), "registered for this type"
        question = self._asked.get((peer, message.nonce))
        if question is not None:
            question.answer = message
            question.answered.set()

    def link_down(self, peer: NodeId) -> None:
        """The link to `peer` has ended: it answers nothing any more."""
        for (asked, _), question in self._asked.items():
            if asked == peer:
                question.answered.set()


class _Question:
    """A confirmation that is asked for."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer: Confirm | None = None
