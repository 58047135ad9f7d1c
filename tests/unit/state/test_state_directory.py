"""What a node remembers, and who may use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from making_members import MESH, Key, a_chain

from meshnode import state as state_module
from meshnode.durable import DamagedState, NewerState, StateError
from meshnode.identity import SigningKey
from meshnode.machine import machine_fingerprint
from meshnode.state import FORMATS, MAX_KNOWN_PEERS, CopiedState, KnownPeer, StateDirectory
from meshnode.state_lock import StateInUse

HERE, THERE = "fingerprint of this machine", "fingerprint of that machine"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def state(path: Path) -> Iterator[StateDirectory]:
    with StateDirectory.open(path) as opened:
        yield opened


def a_peer(name: str, last_seen_unix_s: int = 0) -> KnownPeer:
    key = Key(name)
    return KnownPeer(key.node, ("10.0.0.1:4411",), a_chain(key), last_seen_unix_s)


def test_a_new_state_directory_is_private(state: StateDirectory) -> None:
    assert state.path.stat().st_mode & 0o777 == 0o700


def test_a_node_is_the_same_node_after_a_restart(path: Path) -> None:
    with StateDirectory.open(path) as state:
        first = state.identity()
    with StateDirectory.open(path) as state:
        second = state.identity()
    assert first.node == second.node
    assert first.boot_id != second.boot_id


def test_each_start_has_a_higher_incarnation_stored_before_it_is_used(path: Path) -> None:
    with StateDirectory.open(path) as state:
        first = state.begin_incarnation()
        on_disk = (path / "node.json").read_text()
    with StateDirectory.open(path) as state:
        second = state.begin_incarnation()
    assert (first, second) == (1, 2)
    assert '"incarnation": 1' in on_disk


def test_an_incarnation_never_goes_back(state: StateDirectory) -> None:
    state.persist_incarnation(40)
    state.persist_incarnation(7)
    assert state.begin_incarnation() == 41


def test_a_membership_survives_a_restart(path: Path) -> None:
    chain = a_chain(Key("a"))
    with StateDirectory.open(path) as state:
        state.save_credential(MESH, chain)
    with StateDirectory.open(path) as state:
        stored = state.credential()
    assert stored is not None
    assert (stored.mesh, stored.chain) == (MESH, chain)


def test_known_peers_come_back_most_recently_seen_first(state: StateDirectory) -> None:
    old, new = a_peer("old", 100), a_peer("new", 200)
    state.save_known_peers([old, new])
    assert state.known_peers() == (new, old)


def test_of_too_many_peers_the_most_recently_seen_are_kept(state: StateDirectory) -> None:
    node = Key("peer").node
    state.save_known_peers([KnownPeer(node, (), (), last_seen) for last_seen in range(MAX_KNOWN_PEERS + 5)])
    assert len(state.known_peers()) == MAX_KNOWN_PEERS
    assert state.known_peers()[-1].last_seen_unix_s == 5


def test_a_second_process_is_told_who_holds_the_directory(path: Path) -> None:
    """A real second process, whose pid the error names."""
    program = (
        "import sys; from pathlib import Path; from meshnode.state import StateDirectory\n"
        "state = StateDirectory.open(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StateInUse, match=f"in use by process {holder.pid}; stop that one") as caught:
            StateDirectory.open(path)
        holder.kill()
        holder.wait()
    assert caught.value.pid == holder.pid
    StateDirectory.open(path).close()


def test_the_same_process_can_not_open_it_twice_either(state: StateDirectory) -> None:
    with pytest.raises(StateInUse) as caught:
        StateDirectory.open(state.path)
    assert caught.value.pid == os.getpid()


def test_a_lock_file_deleted_under_its_holder_stops_nobody_and_is_made_anew(path: Path) -> None:
    with StateDirectory.open(path):
        (path / "lock").unlink()
        with StateDirectory.open(path):
            assert (path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_directory_others_can_write_is_refused_with_the_command_that_fixes_it(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(StateError, match=f"mode is 0777.*chmod 700 {path}$"):
        StateDirectory.open(path)


def test_a_directory_others_can_only_read_is_accepted(path: Path) -> None:
    """systemd's StateDirectory= makes it 0755."""
    path.mkdir(mode=0o755)
    StateDirectory.open(path).close()


def test_a_file_in_the_directory_s_place_is_one_error(path: Path) -> None:
    path.write_text("not a directory")
    with pytest.raises(StateError, match="can't be used as state directory"):
        StateDirectory.open(path)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("peers.json", "delete it and start with --peer"),
        ("credential.json", "delete it and join again"),
        ("node.json", "delete it: peers tell this node the incarnation"),
    ],
)
def test_a_damaged_file_says_what_to_do_about_it(state: StateDirectory, name: str, fix: str) -> None:
    (state.path / name).write_bytes(b"\x00\x00\x00")
    with pytest.raises(DamagedState, match=fix):
        {"peers.json": state.known_peers, "credential.json": state.credential, "node.json": state.begin_incarnation}[
            name
        ]()


def test_a_directory_copied_to_another_machine_is_refused(path: Path) -> None:
    with StateDirectory.open(path) as state:
        state.identity(machine=HERE)
    with StateDirectory.open(path) as state, pytest.raises(CopiedState, match="--accept-moved-state"):
        state.identity(machine=THERE)


def test_a_directory_moved_to_another_machine_can_be_accepted_once_and_for_all(path: Path) -> None:
    with StateDirectory.open(path) as state:
        before = state.identity(machine=HERE)
    with StateDirectory.open(path) as state:
        assert state.identity(machine=THERE, accept_moved=True).node == before.node
    with StateDirectory.open(path) as state:
        assert state.identity(machine=THERE).node == before.node


def test_accepting_a_move_keeps_the_incarnation(path: Path) -> None:
    with StateDirectory.open(path) as state:
        state.identity(machine=HERE)
        state.persist_incarnation(9)
        state.identity(machine=THERE, accept_moved=True)
        assert state.begin_incarnation() == 10


def test_this_machine_s_own_fingerprint_is_what_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StateDirectory.open(path) as state:
        monkeypatch.setattr("meshnode.state.machine_fingerprint", lambda: HERE)
        state.identity()
        monkeypatch.setattr("meshnode.state.machine_fingerprint", lambda: THERE)
        with pytest.raises(CopiedState):
            state.identity()


def test_a_machine_that_can_not_be_told_refuses_nothing_and_forgets_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StateDirectory.open(path) as state:
        before = state.identity(machine=HERE)
        monkeypatch.setattr("meshnode.state.machine_fingerprint", lambda: None)
        assert state.identity().node == before.node
        with pytest.raises(CopiedState):
            state.identity(machine=THERE)


def test_a_directory_first_used_where_the_machine_could_not_be_told_is_bound_to_the_first_that_can(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StateDirectory.open(path) as state:
        monkeypatch.setattr("meshnode.state.machine_fingerprint", lambda: None)
        before = state.identity()
        assert state.identity(machine=HERE).node == before.node
        with pytest.raises(CopiedState):
            state.identity(machine=THERE)


def test_a_key_that_was_moved_away_starts_a_new_identity_wherever_it_is(path: Path) -> None:
    with StateDirectory.open(path) as state:
        before = state.identity(machine=HERE)
        (path / "node.key").unlink()
        assert state.identity(machine=THERE).node != before.node


def test_forgetting_a_mesh_keeps_the_node_and_sets_the_root_key_aside(state: StateDirectory) -> None:
    node, root = state.identity().node, SigningKey.generate()
    state.save_root_key(root)
    state.save_credential(MESH, a_chain(Key("a")))
    state.save_known_peers([a_peer("b")])
    state.forget_mesh()
    assert (state.credential(), state.known_peers(), state.root_key()) == (None, (), None)
    assert state.identity().node == node
    assert len(list(state.path.glob("root-*.key"))) == 1


def a_machine(root: Path, machine_id: str | None, container: bool = False) -> Path:
    (root / "etc").mkdir(parents=True)
    if machine_id is not None:
        (root / "etc" / "machine-id").write_text(machine_id)
    if container:
        (root / ".dockerenv").touch()
    return root


def test_a_machine_is_told_apart_without_showing_its_id(tmp_path: Path) -> None:
    one = machine_fingerprint(a_machine(tmp_path / "one", "0123456789abcdef\n"), {})
    other = machine_fingerprint(a_machine(tmp_path / "other", "fedcba9876543210\n"), {})
    assert one is not None
    assert other is not None
    assert one != other
    assert "0123456789abcdef" not in one


@pytest.mark.parametrize("machine_id", [None, "", "uninitialized\n"])
def test_a_machine_without_id_is_not_told(tmp_path: Path, machine_id: str | None) -> None:
    assert machine_fingerprint(a_machine(tmp_path / "root", machine_id), {}) is None


def test_a_container_s_id_says_nothing(tmp_path: Path) -> None:
    assert machine_fingerprint(a_machine(tmp_path / "docker", "0123", container=True), {}) is None
    assert machine_fingerprint(a_machine(tmp_path / "systemd", "0123"), {"container": "podman"}) is None


def contents_of(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.name != "lock"}


@pytest.mark.parametrize("name", FORMATS)
def test_a_directory_of_a_newer_meshnode_is_refused_before_anything_is_changed(path: Path, name: str) -> None:
    with StateDirectory.open(path) as state:
        state.identity(machine="here")
        state.begin_incarnation()
    (path / name).write_text(f'{{"format": {FORMATS[name] + 1}}}')
    before = contents_of(path)
    with pytest.raises(NewerState, match=r"newer meshnode .*; upgrade meshnode"):
        StateDirectory.open(path)
    assert contents_of(path) == before
    (path / name).unlink()
    with StateDirectory.open(path):
        pass


def test_an_upgrade_keeps_what_was_known_and_the_way_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = [KnownPeer(Key("friend").node, ("192.0.2.1:4411",), (), 7)]
    with StateDirectory.open(path) as state:
        state.save_known_peers(peers)
        old = (path / "peers.json").read_bytes()
    with monkeypatch.context() as upgraded:
        upgraded.setitem(state_module.FORMATS, "peers.json", 2)
        upgraded.setitem(state_module.MIGRATIONS, "peers.json", {1: lambda fields: fields})
        with StateDirectory.open(path) as state:
            assert list(state.known_peers()) == peers
            state.save_known_peers([])
    assert (path / "peers.json.format1").read_bytes() == old
    with pytest.raises(NewerState, match=r"mv .*peers\.json\.format1"):
        StateDirectory.open(path)
    os.replace(path / "peers.json.format1", path / "peers.json")
    with StateDirectory.open(path) as state:
        assert list(state.known_peers()) == peers


def test_full_disk_at_the_lock_is_one_error_that_names_the_file(path: Path) -> None:
    path.mkdir(mode=0o700)
    (path / "lock").symlink_to("/dev/full")
    with pytest.raises(StateError, match=r"lock: can't be written: .*; make room on its disk"):
        StateDirectory.open(path)


def test_forgetting_a_mesh_forgets_what_an_upgrade_kept(state: StateDirectory) -> None:
    (state.path / "credential.json.format1").write_text("{}")
    state.forget_mesh()
    assert not (state.path / "credential.json.format1").exists()
