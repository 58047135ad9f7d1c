"""Gives one worker its stage's large tensors out of local files: the child of a tunnel for weights, at the source.

What lives here: the child's main function, and the digests of tensors. What does not: who may have one
(`meshnode.engine.weights.source`), what is said (`proto.weights`).

One process for each tunnel, so that hashing, reading and a worker that stalls are no matter of the node's event loop.
The digests are hashed a few tensors ahead of what is asked for, and kept in the folder of what is known of model files:
a tensor is hashed once, however often it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from meshnode.engine.confinement.reach import Reach, give_up_the_rest
from meshnode.engine.confinement.rights import drop_rights, end_with_parent, limit_resources
from meshnode.engine.weights.fill_process import large_tensors
from meshnode.engine.weights.talk import PIECE_BYTES, Talk, TalkBroken
from meshnode.engine.words import Speaker
from meshnode.models.cache import FileCache, FileStamp, stamp_files
from meshnode.models.errors import ModelFileError
from meshnode.models.gguf_file import TensorPlace, tensor_places
from proto.errors import WireError
from proto.weights import MAX_LISTED, TensorSize, WeightsEnd, WeightsList, WeightsRequest, WeightsTensor

HASHED_AT_ONCE: Final = 2
AHEAD: Final = 4
"""Tensors hashed before they are asked for: enough to keep the sending busy, few enough to stay in the page cache."""


@dataclass(frozen=True, slots=True)
class SourceOrders:
    """Layers [start, end) of each of `ranges` of the package in `paths`, and its output head where `head`. `known` is
    the folder of what is known of model files; `socket_fd` leads to the worker."""

    paths: tuple[str, ...]
    manifest: str
    ranges: tuple[tuple[int, int], ...]
    head: bool
    known: str
    socket_fd: int
    reach: Reach = field(default_factory=Reach)

    def to_argument(self) -> str:
        """The one word of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, text: str) -> SourceOrders:
        """What `to_argument` made."""
        fields = json.loads(text)
        ranges = tuple((start, end) for start, end in fields["ranges"])
        reach = Reach.from_fields(fields["reach"])
        return cls(**{**fields, "paths": tuple(fields["paths"]), "ranges": ranges, "reach": reach})


class SourceChanged(Exception):
    """The files are not what they were when they were read."""


def main(arguments: Sequence[str]) -> int:
    """Says `{"given": bytes}` last, or `{"failed": reason}`."""
    orders = SourceOrders.from_argument(arguments[0])
    end_with_parent()
    speaker = Speaker()
    limit_resources()
    drop_rights()
    give_up_the_rest(orders.reach.also(reads=orders.paths, writes=[orders.known]), unix_streams=True)
    talk = Talk(socket.socket(fileno=orders.socket_fd))
    try:
        speaker.say(given=_serve(orders, talk))
    except TalkBroken as error:
        speaker.say(failed=str(error))
    except (ModelFileError, SourceChanged, WireError, OSError) as error:
        speaker.say(failed=str(error)[:300])
        try:
            talk.say(WeightsEnd(str(error)[:300]))
        except TalkBroken:
            return 1
    return 0


def _serve(orders: SourceOrders, talk: Talk) -> int:
    """Until the worker has what it wants; the bytes given."""
    paths = [Path(path) for path in orders.paths]
    stamps = stamp_files(paths)
    tensors = large_tensors(tensor_places(paths), orders.ranges, orders.head)
    for listed in _lists(orders.manifest, tensors):
        talk.say(listed)
    given = 0
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        digests = Digests(tensors, stamps, FileCache(Path(orders.known), "tensors-sha256", dict[str, str]), pool)
        try:
            while (asked := talk.hear([WeightsRequest])) is not None:
                assert isinstance(asked, WeightsRequest), "nothing else is allowed"
                given += _answer(asked, digests, talk)
        finally:
            digests.forget_ahead()
    return given


def _lists(manifest: str, tensors: Sequence[TensorPlace]) -> Iterator[WeightsList]:
    """At least one, which may be empty."""
    for begin in range(0, max(1, len(tensors)), MAX_LISTED):
        some = tuple(TensorSize(place.name, place.size_bytes) for place in tensors[begin : begin + MAX_LISTED])
        yield WeightsList(manifest, some, begin + MAX_LISTED < len(tensors))


def _answer(asked: WeightsRequest, digests: Digests, talk: Talk) -> int:
    place, digest = digests.of(asked.name)
    goes_on = asked.digest == digest and asked.offset <= place.size_bytes
    offset = asked.offset if goes_on else 0
    talk.say(WeightsTensor(place.name, place.size_bytes, digest, offset))
    if asked.told_only:
        return 0
    with place.path.open("rb") as file:
        talk.give(file, place.offset + offset, place.size_bytes - offset) if offset < place.size_bytes else None
    return place.size_bytes - offset


class Digests:
    """The SHA-256 of each of `tensors`, hashed in `pool`. `stamps` are the files as they were when they were read."""

    def __init__(
        self,
        tensors: Sequence[TensorPlace],
        stamps: tuple[FileStamp, ...],
        cache: FileCache[dict[str, str]],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._tensors = tensors
        self._stamps = stamps
        self._cache = cache
        self._pool = pool
        self._at = {place.name: number for number, place in enumerate(tensors)}
        self._known = dict(cache.get(stamps) or {})
        self._hashing: dict[str, Future[str]] = {}

    def of(self, name: str) -> tuple[TensorPlace, bytes]:
        """Where the tensor is, and its digest; the next ones are begun. Raises `WireError` for one that was not listed,
        `SourceChanged` where the files are not the same any more."""
        number = self._at.get(name)
        if number is None:
            raise WireError("weights_request", "name", repr(name), "a tensor of the list")
        for place in self._tensors[number : number + 1 + AHEAD]:
            if place.name not in self._known and place.name not in self._hashing:
                self._hashing[place.name] = self._pool.submit(sha256_of, place)
        if (hashing := self._hashing.pop(name, None)) is not None:
            self._remember(name, hashing.result())
        if stamp_files([Path(stamp.path) for stamp in self._stamps]) != self._stamps:
            raise SourceChanged(f"{self._tensors[number].path.name} changed since it was read")
        return self._tensors[number], bytes.fromhex(self._known[name])

    def forget_ahead(self) -> None:
        """Nobody asks any more."""
        for hashing in self._hashing.values():
            hashing.cancel()

    def _remember(self, name: str, digest: str) -> None:
        """Others of these files may have been hashed by another process meanwhile."""
        self._known = {**(self._cache.get(self._stamps) or {}), **self._known, name: digest}
        self._cache.put(self._stamps, self._known)


def sha256_of(place: TensorPlace) -> str:
    """The digest of a tensor's bytes, in hex."""
    digest = hashlib.sha256()
    with place.path.open("rb") as file:
        for begin in range(place.offset, place.offset + place.size_bytes, PIECE_BYTES):
            piece = os.pread(file.fileno(), min(PIECE_BYTES, place.offset + place.size_bytes - begin), begin)
            digest.update(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
