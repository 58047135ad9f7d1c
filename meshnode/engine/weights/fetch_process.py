"""Fetches a stage's large tensors from a source: the child of a tunnel for weights, at the worker.

What lives here: the child's main function: judging the list, receiving, verifying. What does not: the tunnel, trying
again, which folders may stay (`meshnode.engine.weights.fetch`), the folder itself (`meshnode.engine.weights.folder`).

What a source says is judged before a byte is asked for: tensors of this stage's layers only, each of a size that the
engine looks up, no name twice, and no more together than the stage has reserved. Each finished tensor is hashed anew,
what an earlier try had of it included: by SHA-256 against the source's word, and by the FNV-1a that llama.cpp names it
by. One that is wrong is thrown away and fetched once more, from its beginning; wrong again, the stage goes on without.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from meshnode.engine.confinement.reach import Reach, give_up_the_rest
from meshnode.engine.confinement.rights import drop_rights, end_with_parent, limit_resources
from meshnode.engine.weights.fill_process import no_room
from meshnode.engine.weights.folder import About, FetchedFolder, Have, folder_name, joined, size_of
from meshnode.engine.weights.listing import SourceEnded, heard, listed
from meshnode.engine.weights.member import Member
from meshnode.engine.weights.talk import PIECE_BYTES, Talk, TalkBroken
from meshnode.engine.words import Speaker
from proto.errors import WireError
from proto.weights import TensorSize, WeightsRequest, WeightsTensor

VERIFIED_AT_ONCE: Final = 2
ASKED_AHEAD: Final = 2
"""Requests on their way at once: the next tensor follows without a round trip between."""
TELL_S: Final = 0.5
ALONE, WITH_MEMBER = b"!", b"+"


@dataclass(frozen=True, slots=True)
class FetchOrders:
    """For the stage of `model` with layers [start, end) of each of `ranges`, from `source`, into its folder below
    `root`. `most_bytes` is what the stage has reserved, `cache_bytes` what the whole cache may take (None: the disk).
    `socket_fd` leads to the source; a byte that comes at `go_fd` says that the folder is this process's to fill, and
    `WITH_MEMBER` that `member_fd` leads to another member that has the package."""

    root: str
    model: str
    source: str
    ranges: tuple[tuple[int, int], ...]
    most_bytes: int
    cache_bytes: int | None
    socket_fd: int
    member_fd: int
    go_fd: int
    reach: Reach = field(default_factory=Reach)

    @property
    def passed_fds(self) -> list[int]:
        """What the process inherits."""
        return [self.socket_fd, self.member_fd, self.go_fd]

    def to_argument(self) -> str:
        """The one word of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> FetchOrders:
        """What `to_argument` made."""
        fields = json.loads(text)
        ranges = tuple((start, end) for start, end in fields["ranges"])
        return cls(**{**fields, "ranges": ranges, "reach": Reach.from_fields(fields["reach"])})


def main(arguments: Sequence[str]) -> int:
    """Says `{"listed": folder, "total"}` and, told to go on, `{"here": bytes}`; `{"done", "total", "received"}` as it
    goes, `{"rejected": tensor, ...}` for one that is wrong; last one of `{"filled": ...}`, `{"skipped": reason,
    "needed": bytes}`, `{"refused": reason}` where the source broke the rules, `{"interrupted": reason}`."""
    orders = FetchOrders.from_argument(arguments[0])
    end_with_parent()
    speaker = Speaker()
    limit_resources()
    drop_rights()
    give_up_the_rest(orders.reach.also(writes=[orders.root]), unix_streams=True)
    try:
        _fetch(orders, Talk(socket.socket(fileno=orders.socket_fd)), speaker)
    except TalkBroken as error:
        speaker.say(interrupted=str(error))
    except SourceEnded as error:
        speaker.say(skipped=f"the source ended it: {error}", needed=0)
    except WireError as error:
        speaker.say(refused=str(error)[:300])
    except OSError as error:
        speaker.say(skipped=str(error)[:300], needed=0)
    return 0


def _fetch(orders: FetchOrders, talk: Talk, speaker: Speaker) -> None:
    manifest, tensors = listed(talk, orders.ranges, orders.most_bytes)
    name = folder_name(orders.source, manifest)
    folder = FetchedFolder(Path(orders.root) / name)
    total = sum(tensor.size_bytes for tensor in tensors)
    speaker.say(listed=name, manifest=manifest, total=total)
    member = None
    if os.read(orders.go_fd, 1) == WITH_MEMBER:
        there = Talk(socket.socket(fileno=orders.member_fd))
        member = Member(there, manifest, lambda reason, is_wrong: speaker.say(left=reason[:300], wrong=is_wrong))
    folder.make()
    try:
        _fill(folder, manifest, tensors, orders, talk, member, speaker)
    finally:
        # The server reads here and must never write: what a coordinator's engine sends is not what was verified.
        folder.close()


def _fill(
    folder: FetchedFolder, manifest: str, tensors: list[TensorSize], orders: FetchOrders, talk: Talk,
    member: Member | None, speaker: Speaker,
) -> None:  # fmt: skip
    here = folder.have()
    total = sum(tensor.size_bytes for tensor in tensors)
    needed = total - sum(_kept(here, tensor) for tensor in tensors)
    if (problem := _no_room(orders, folder, tensors, needed)) is not None:
        speaker.say(skipped=problem, needed=needed)
        return
    folder.keep_only({tensor.name for tensor in tensors}, parts_only=True)
    speaker.say(here=total - needed)
    with ThreadPoolExecutor(VERIFIED_AT_ONCE) as pool:
        fetch = _Fetch(folder, talk, member, tensors, here, pool, speaker)
        try:
            fetch.run()
        finally:
            fetch.end()
    before = folder.about()
    ranges = [*(() if before is None else before.ranges), *(() if fetch.lost else orders.ranges)]
    folder.tell(About(orders.model, orders.source, manifest, joined(ranges)))
    lost_bytes = sum(tensor.size_bytes for tensor in tensors if tensor.name in fetch.lost)
    speaker.say(filled=True, tensors=len(tensors), received=fetch.received, lost=len(fetch.lost), lost_bytes=lost_bytes)


def _kept(here: dict[str, Have], tensor: TensorSize) -> int:
    have = here.get(tensor.name)
    return 0 if have is None else min(have.size_bytes, tensor.size_bytes)


def _no_room(orders: FetchOrders, folder: FetchedFolder, tensors: Sequence[TensorSize], needed: int) -> str | None:
    """Why it can't be fetched, with figures. What other stages left in the folder goes before that is said."""
    largest = max((tensor.size_bytes for tensor in tensors), default=0)

    def problem() -> str | None:
        root = Path(orders.root)
        room = None if orders.cache_bytes is None else orders.cache_bytes - size_of(root)
        return no_room(shutil.disk_usage(root).free, needed, largest, room)

    if problem() is not None:
        folder.keep_only({tensor.name for tensor in tensors})
    return problem()


# --- the bytes -----------------------------------------------------------------------------------------------------


@dataclass
class _Verifying:
    tensor: TensorSize
    digest: bytes
    was_resumed: bool
    from_member: bool
    outcome: Future[str]


class _Fetch:
    """Receives `tensors` into `folder`. `here` is what was there before; `lost` are those that stay wrong."""

    def __init__(
        self,
        folder: FetchedFolder,
        talk: Talk,
        member: Member | None,
        tensors: Sequence[TensorSize],
        here: dict[str, Have],
        pool: ThreadPoolExecutor,
        speaker: Speaker,
    ) -> None:
        self._folder = folder
        self._talk = talk
        self._member = member
        self._here = here
        self._pool = pool
        self._speaker = speaker
        self._wanted = deque(tensors)
        self._asked: deque[tuple[TensorSize, WeightsRequest]] = deque()
        self._verifying: deque[_Verifying] = deque()
        self._again: set[str] = set()
        self._room = memoryview(bytearray(PIECE_BYTES))
        self._total = sum(tensor.size_bytes for tensor in tensors)
        self._done = sum(_kept(here, tensor) for tensor in tensors)
        self._told_s = 0.0
        self.received = 0
        self.lost: set[str] = set()

    def run(self) -> None:
        """Until every tensor is whole, or lost."""
        self._tell()
        while self._wanted or self._asked or self._verifying:
            while self._wanted and len(self._asked) < ASKED_AHEAD:
                self._ask(self._wanted.popleft())
            if self._asked:
                self._answered(*self._asked.popleft())
            while self._verifying and (len(self._verifying) > VERIFIED_AT_ONCE or not (self._asked or self._wanted)):
                self._settle(self._verifying.popleft())

    def end(self) -> None:
        """However it ended: what is verified by now counts."""
        for verifying in self._verifying:
            if not verifying.outcome.cancel() and verifying.outcome.exception() is None:
                self._settle(verifying)
        self._tell(now=True)

    def _ask(self, tensor: TensorSize) -> None:
        have = self._here.get(tensor.name)
        offset, digest = (0, None) if have is None else (min(have.size_bytes, tensor.size_bytes), have.digest)
        told_only = self._member is not None and self._member.is_of_use
        request = WeightsRequest(tensor.name, offset, digest, told_only)
        self._talk.say(request)
        self._asked.append((tensor, request))

    def _answered(self, tensor: TensorSize, request: WeightsRequest) -> None:
        answer = heard(self._talk, WeightsTensor)
        if (answer.name, answer.size_bytes) != (tensor.name, tensor.size_bytes):
            found = f"{answer.name!r} of {answer.size_bytes} bytes"
            raise WireError("weights_tensor", "name", found, f"{tensor.name!r} of {tensor.size_bytes} bytes")
        if answer.offset not in (0, request.offset) or (answer.offset and answer.digest != request.digest):
            raise WireError("weights_tensor", "offset", f"{answer.offset}", f"0, or {request.offset} of the same bytes")
        have = self._here.get(tensor.name)
        self._done += answer.offset - _kept(self._here, tensor)
        self._here.pop(tensor.name, None)
        if have is not None and answer.offset == 0:
            self._folder.discard(tensor.name)
            have = None
        if have is not None and have.is_whole and answer.offset == tensor.size_bytes:
            return
        path = self._folder.part(tensor.name, answer.digest)
        if not request.told_only:
            self._receive(self._talk, path, answer.offset, tensor.size_bytes)
        elif not self._received_from_member(tensor, answer, path):
            # Asked for once more, of the coordinator, from where the member left off.
            reached = path.stat().st_size if path.exists() else 0
            self._here[tensor.name] = Have(answer.digest, reached, is_whole=False)
            self._wanted.appendleft(tensor)
            return
        outcome = self._pool.submit(hashes_of, path, answer.digest)
        self._verifying.append(_Verifying(tensor, answer.digest, answer.offset > 0, request.told_only, outcome))

    def _received_from_member(self, tensor: TensorSize, answer: WeightsTensor, path: Path) -> bool:
        """Whether the member gave all that is missing."""
        member = self._member
        assert member is not None, "asked so with one only"
        if answer.offset < tensor.size_bytes:
            if not member.is_of_use or not member.begin(tensor, answer.digest, answer.offset):
                return False
            try:
                self._receive(member.talk, path, answer.offset, tensor.size_bytes)
            except TalkBroken as error:
                member.leave(str(error), is_wrong=False)
                return False
        return True

    def _receive(self, talk: Talk, path: Path, offset: int, size_bytes: int) -> None:
        with path.open("ab") as part:
            part.truncate(offset)
            while offset < size_bytes:
                count = talk.take(self._room[: min(PIECE_BYTES, size_bytes - offset)])
                part.write(self._room[:count])
                offset += count
                self._done += count
                self.received += count
                self._tell()

    def _settle(self, verifying: _Verifying) -> None:
        """A tensor was hashed: it appears, or is thrown away."""
        tensor, fnv = verifying.tensor, verifying.outcome.result()
        if fnv:
            self._folder.finish(tensor.name, verifying.digest, fnv)
            return
        self._folder.discard(tensor.name)
        by_member = verifying.from_member
        if by_member and self._member is not None:
            self._member.leave("what it gave has another SHA-256", is_wrong=False)
        again = by_member or tensor.name not in self._again
        self._speaker.say(
            rejected=tensor.name, size=tensor.size_bytes, resumed=verifying.was_resumed, member=by_member, again=again
        )
        if again:
            self._again |= set() if by_member else {tensor.name}
            self._done -= tensor.size_bytes
            self._wanted.append(tensor)
        else:
            self.lost.add(tensor.name)

    def _tell(self, *, now: bool = False) -> None:
        if (now_s := time.monotonic()) - self._told_s >= TELL_S or now:
            self._told_s = now_s
            self._speaker.say(done=self._done, total=self._total, received=self.received)


def hashes_of(path: Path, digest: bytes) -> str:
    """The FNV-1a of the file in 16 hex digits, once it is on the disk; nothing where its SHA-256 is not `digest`."""
    from meshnode.engine.weights.fnv import OFFSET, fnv1a_64

    found, value = hashlib.sha256(), OFFSET
    with path.open("rb+") as part:
        while piece := part.read(PIECE_BYTES):
            found.update(piece)
            value = fnv1a_64(piece, value)
        if found.digest() != digest:
            return ""
        os.fsync(part.fileno())
    return f"{value:016x}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
