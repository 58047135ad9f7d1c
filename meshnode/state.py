"""The state directory: what a node must remember to be the same node tomorrow.

What lives here: `StateDirectory`, its files and their shapes. What does not: how a file is written
(`meshnode.durable`), keys (`meshnode.identity`), invites and revocations, whose shapes lie with their meaning
(`meshnode.admission`). Called by the daemon and by verbs that work without one (`init`).

| file | holds | lost or damaged |
|---|---|---|
| `node.key` | the node's private key | a new identity: it must be invited again |
| `root.key` | the mesh's root key, where it was not exported | nobody can sign for the mesh itself any more |
| `node.json` | last incarnation, machine's fingerprint, port of the system's choice | peers tell the incarnation |
| `credential.json` | mesh id and credential chain | it must be invited again |
| `peers.json` | members' addresses and chains | learned again from any one member |
| `invites.json` | invites made here and their uses | open invites are void |
| `revocations.json` | all revocations known | learned again before the first record |
| `page.json` | the live page's port and the secret of its sessions | it is opened anew with `meshnode ui` |
| `lock` | the holder's pid | nothing |

The lock is held from `open` to `close`; every other method may rely on being alone.

Each JSON file has a format number, `FORMATS` below. `open` refuses a directory in which any of them is newer than this
program before anything is changed. To change a file's shape: raise its number there and add to `MIGRATIONS` how the
fields of the old format become those of the new one; the old file is kept beside the new one at its first write.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, TypeVar

from msgspec import Meta, Struct
from msgspec.structs import replace

from meshnode.durable import DamagedState, Migration, StateError, VersionedFile, remove_durably, remove_temporaries
from meshnode.identity import Identity, SigningKey, read_key_file, write_key_file
from meshnode.machine import machine_fingerprint
from meshnode.state_lock import StateLock
from proto.ids import MeshId, NodeId, mesh_id_of, short
from proto.parts import MAX_ADDRESSES, MAX_CHAIN
from proto.shapes import WireAddress, WireCounter, WireMeshId, WireNodeId, WireUnixTime

S = TypeVar("S", bound=Struct)

FORMATS: Final[dict[str, int]] = {
    "node.json": 1,
    "credential.json": 1,
    "peers.json": 1,
    "invites.json": 1,
    "revocations.json": 1,
    "fences.json": 1,
    "page.json": 1,
}
"""The format in which this program writes each file."""
MIGRATIONS: Final[dict[str, dict[int, Migration]]] = {}
"""By file and format n: how its fields become those of format n + 1."""

MAX_KNOWN_PEERS: Final = 10_000
"""As many as a mesh may have records (`MembershipSettings.max_nodes`)."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_StoredChain = Annotated[tuple[Annotated[bytes, Meta(max_length=1024)], ...], Meta(max_length=MAX_CHAIN)]


class StoredCredential(Struct, frozen=True):
    """The membership this node holds: its mesh and its chain, the root's entry first."""

    mesh: WireMeshId
    chain: Annotated[_StoredChain, Meta(min_length=1)]


class KnownPeer(Struct, frozen=True):
    """A member as last seen: enough to dial it, and to judge it, after a restart with nobody else online."""

    node: WireNodeId
    addresses: Annotated[tuple[WireAddress, ...], Meta(max_length=MAX_ADDRESSES)]
    chain: _StoredChain = ()
    last_seen_unix_s: WireUnixTime = 0


class _NodeFile(Struct, frozen=True):
    incarnation: WireCounter = 0
    machine: str | None = None
    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None


class _PeersFile(Struct, frozen=True):
    peers: Annotated[tuple[KnownPeer, ...], Meta(max_length=MAX_KNOWN_PEERS)] = ()


class CopiedState(StateError):
    """The state directory was used on another machine before."""

    def __init__(self, directory: Path) -> None:
        found = "this state directory was used on another machine, and two nodes with one key disturb each other"
        fix = (
            "if it was moved here and the other machine is out of use, start once with --accept-moved-state; "
            "if it was copied, use an empty one and a new invite"
        )
        super().__init__(directory, found, fix)


class StateDirectory:
    """An open, locked state directory. Use `StateDirectory.open(path)`, best in a `with` statement."""

    def __init__(self, path: Path, lock: StateLock) -> None:
        self.path = path
        self._lock = lock
        self._node = self.file("node.json", _NodeFile, "delete it: peers tell this node the incarnation to go above")
        self._credential = self.file("credential.json", StoredCredential, "delete it and join again with a new invite")
        self._peers = self.file(
            "peers.json", _PeersFile, "delete it and start with --peer NODE_ID@ADDR:PORT of any member"
        )

    @classmethod
    def open(cls, path: Path) -> StateDirectory:
        """Create the directory where it is missing (mode 0700), lock it, clear away writes that a crash cut short.

        Raises `StateInUse` where another process holds it, `NewerState` where a newer meshnode wrote in it,
        `StateError` where it can't be used.
        """
        _usable_directory(path)
        lock = StateLock(path)
        try:
            _check_formats(path)
        except StateError:
            lock.release()
            raise
        remove_temporaries(path)
        return cls(path, lock)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> StateDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def file(self, name: str, shape: type[S], fix: str) -> VersionedFile[S]:
        """A state file of this directory, for the room its shape belongs to."""
        return VersionedFile(
            self.path / name, shape, fix=fix, current_format=FORMATS[name], migrations=MIGRATIONS.get(name)
        )

    # --- who the node is

    def identity(self, *, accept_moved: bool = False, machine: str | None = None) -> Identity:
        """This node's identity, with a key made at the first call ever and a boot id made at this one.

        `machine` is a fingerprint to use in place of this machine's own. Raises `CopiedState` where the directory was
        last used on another machine, unless `accept_moved`; `StateError` for a key file that is exposed or damaged.
        """
        key_path = self.path / "node.key"
        key = read_key_file(key_path, "restore it from a backup, or move it away: the node then needs a new invite")
        self._bind_to(machine or machine_fingerprint(), accept_moved or key is None)
        if key is None:
            key = SigningKey.generate()
            write_key_file(key_path, key)
        return Identity.starting(key)

    def begin_incarnation(self) -> int:
        """The incarnation of this start: one above the last, stored before it is returned."""
        incarnation = self._node_file().incarnation + 1
        self.persist_incarnation(incarnation)
        return incarnation

    def persist_incarnation(self, incarnation: int) -> None:
        """Store `incarnation` durably; a lower one than the stored is ignored (it never goes back)."""
        stored = self._node_file()
        if incarnation > stored.incarnation:
            self._node.save(replace(stored, incarnation=incarnation))

    def chosen_port(self) -> int | None:
        """The UDP port that the system chose last, where peers look for this node."""
        return self._node_file().port

    def keep_chosen_port(self, port: int) -> None:
        """Store the UDP port that the system chose, durably. Raises `StateError`."""
        stored = self._node_file()
        if port != stored.port:
            self._node.save(replace(stored, port=port))

    def _bind_to(self, machine: str | None, accepted: bool) -> None:
        stored = self._node_file()
        if machine is None or stored.machine == machine:
            return
        if stored.machine is not None and not accepted:
            raise CopiedState(self.path)
        self._node.save(replace(stored, machine=machine))

    def _node_file(self) -> _NodeFile:
        return self._node.load() or _NodeFile()

    # --- what it belongs to

    def root_key(self) -> SigningKey | None:
        """The mesh's root key; None where it was exported or this node did not found the mesh."""
        return read_key_file(self._root_path, "restore it from a backup, or move it away: others' membership stands")

    def save_root_key(self, key: SigningKey) -> None:
        """Keep the mesh's root key here."""
        write_key_file(self._root_path, key)

    def drop_root_key(self) -> None:
        """Delete the root key here, after it was exported."""
        remove_durably(self._root_path)

    def credential(self) -> StoredCredential | None:
        """The membership this node holds; None before it joined."""
        return self._credential.load()

    def save_credential(self, mesh: MeshId, chain: Sequence[bytes]) -> None:
        """Keep the membership, durably."""
        self._credential.save(StoredCredential(mesh, tuple(chain)))

    def forget_mesh(self) -> None:
        """Leave the mesh for good: drop membership, peers, invites and revocations; the node's key stays.

        A root key is the mesh's own and can't be made again: it is kept aside as `root-<mesh>.key`.
        """
        root = self.root_key()
        if root is not None:
            os.replace(self._root_path, self.path / f"root-{short(mesh_id_of(root.public_key))}.key")
        for name in ("peers.json", "invites.json", "fences.json", "revocations.json", "credential.json"):
            remove_durably(self.path / name)
            for kept in self.path.glob(f"{name}.format*"):
                remove_durably(kept)

    @property
    def _root_path(self) -> Path:
        return self.path / "root.key"

    # --- whom it knows

    def known_peers(self) -> tuple[KnownPeer, ...]:
        """Members as last seen, most recently seen first."""
        stored = self._peers.load() or _PeersFile()
        return tuple(sorted(stored.peers, key=lambda peer: (-peer.last_seen_unix_s, peer.node)))

    def save_known_peers(self, peers: Sequence[KnownPeer]) -> None:
        """Replace what is known; of more than 10,000 the most recently seen are kept."""
        newest_first = sorted(peers, key=lambda peer: (-peer.last_seen_unix_s, peer.node))
        self._peers.save(_PeersFile(tuple(newest_first[:MAX_KNOWN_PEERS])))

    def forget_peer(self, node: NodeId) -> None:
        """Drop one member, as after its removal."""
        self.save_known_peers([peer for peer in self.known_peers() if peer.node != node])


def _check_formats(path: Path) -> None:
    """Whatever else is wrong with a file is for its reader to say, who knows what it is worth."""
    for name, number in FORMATS.items():
        with contextlib.suppress(DamagedState):
            VersionedFile(path / name, Struct, fix="", current_format=number).check_format()


def _usable_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = path.stat()
    except OSError as error:
        advice = "name a directory this user can write with --state-dir"
        raise StateError(path, f"can't be used as state directory: {error.strerror}", advice) from error
    # Readable is tolerated (systemd's StateDirectory= makes it 0755; each file is 0600), writable lets others
    # replace the key.
    if state.st_mode & _OTHERS_WRITE:
        mode = f"its mode is {stat.S_IMODE(state.st_mode):04o}, so that other users can replace the key"
        raise StateError(path, mode, f"chmod 700 {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StateError(
            path, "can't be written by this user", f"chown it, or name another with --state-dir (ls -ld {path})"
        )
