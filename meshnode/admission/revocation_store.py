"""The revocations this node knows, on disk before they have any effect elsewhere.

What lives here: `RevocationStore`. What does not: what they mean (`proto.revocation`), what follows from a new one (the
daemon closes links, tunnels, leases). Called by removal and by the daemon when a peer's `Revocations` frame comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta, Struct

from meshnode.durable import DamagedState, StateError, VersionedFile
from proto.errors import WireError
from proto.ids import MeshId, NodeId
from proto.messages import Revocations
from proto.revocation import BadRevocation, CheckedRevocation, RevocationSet, check_revocation

FIX: Final = "delete it: every member sends its revocations before anything else"
_ENTRIES_PER_FRAME: Final = 48
"""48 entries of at most 4,096 bytes stay well within the frame limit of 256 KiB."""


class RevocationsFile(Struct, frozen=True):
    """`revocations.json`: each entry as it goes over the wire."""

    entries: Annotated[tuple[Annotated[bytes, Meta(max_length=4096)], ...], Meta(max_length=200_000)] = ()


@dataclass(frozen=True, slots=True)
class Learned:
    """What a batch brought: entries to pass on, nodes they name, nodes they keep, and why others were refused.

    `unsaved` is the error of a disk that refused them: they hold in this process all the same. `adopted` tells that one
    of them cut this node's own chain and gave it another, which its record has to carry from now on.
    """

    new: tuple[bytes, ...]
    nodes: tuple[NodeId, ...]
    kept: tuple[NodeId, ...]
    refused: tuple[str, ...]
    unsaved: StateError | None = None
    adopted: bool = False


class RevocationStore:
    """Durable `RevocationSet` of one mesh. Raises `DamagedState` at once where its file holds something else."""

    def __init__(self, file: VersionedFile[RevocationsFile], mesh: MeshId) -> None:
        self._file = file
        self._mesh = mesh
        self.revoked = RevocationSet()
        for entry in (file.load() or RevocationsFile()).entries:
            try:
                self.revoked.add(check_revocation(entry, mesh))
            except (WireError, BadRevocation) as error:
                raise DamagedState(file.path, f"damaged ({error})", FIX) from error

    def learn(self, entries: Iterable[bytes]) -> Learned:
        """Take in what is new and valid, the whole batch on disk before any of it has an effect outside."""
        taken: list[CheckedRevocation] = []
        refused: list[str] = []
        for entry in entries:
            if entry in self.revoked:
                continue
            try:
                revocation = check_revocation(entry, self._mesh)
            except (WireError, BadRevocation) as error:
                refused.append(str(error))
                continue
            if self.revoked.add(revocation):
                taken.append(revocation)
        return Learned(
            tuple(one.encoded for one in taken),
            tuple(dict.fromkeys(one.node for one in taken if one.node is not None)),
            tuple(dict.fromkeys(kept.node for one in taken for kept in one.kept)),
            tuple(refused),
            self._saved() if taken else None,
        )

    def _saved(self) -> StateError | None:
        try:
            self._file.save(RevocationsFile(tuple(one.encoded for one in self.revoked)))
        except StateError as error:
            # A full disk must not keep a removed node in: the removal takes effect and is reported as unsaved.
            return error
        return None

    def frames(self) -> Iterator[Revocations]:
        """The opening list for a new link: at least one frame, the last one marked complete."""
        entries = [one.encoded for one in self.revoked]
        starts = range(0, max(len(entries), 1), _ENTRIES_PER_FRAME)
        for start in starts:
            page = tuple(entries[start : start + _ENTRIES_PER_FRAME])
            yield Revocations(page, complete=start + _ENTRIES_PER_FRAME >= len(entries))
