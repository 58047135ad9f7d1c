"""A mesh begins, its members come back, and damaged state is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_members import NOW_UNIX_S, Key, a_chain
from mesh_of_members import MeshOfMembers

from meshnode.admission import Admission, AlreadyMember, NotAMember, found_mesh, take_membership
from meshnode.durable import DamagedState, StateError
from meshnode.identity import SigningKey
from meshnode.state import KnownPeer, StateDirectory
from proto.credential import BadCredential
from proto.ids import mesh_id_of, public_key_of
from proto.parts import Role


def test_a_founder_is_a_member_that_may_invite(mesh: MeshOfMembers) -> None:
    standing = mesh.founder.standing(NOW_UNIX_S)
    assert (standing.role, standing.may_invite, standing.depth) == (Role.WORKER, True, 1)


def test_a_mesh_s_key_is_apart_from_its_founder_s(mesh: MeshOfMembers) -> None:
    assert public_key_of(mesh.founder.mesh) != mesh.founder.identity.public_key


def test_a_root_key_stays_with_the_founder_unless_exported(mesh: MeshOfMembers) -> None:
    root = mesh.state("founder").root_key()
    assert root is not None
    assert mesh_id_of(root.public_key) == mesh.founder.mesh
    assert mesh.founder.keeps_root


def test_an_exported_root_key_lies_in_its_file_only(without_root: MeshOfMembers, tmp_path: Path) -> None:
    exported = (tmp_path / "root.pem").read_bytes()
    secret = exported.splitlines()[1]
    stored = b"".join(path.read_bytes() for path in without_root.state("founder").path.iterdir())
    assert secret not in stored
    assert not without_root.founder.keeps_root
    assert (tmp_path / "root.pem").stat().st_mode & 0o777 == 0o600


def test_an_export_over_an_existing_file_founds_nothing(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text("precious")
    with StateDirectory.open(tmp_path / "state") as state:
        with pytest.raises(StateError, match="never overwritten"):
            found_mesh(state, state.identity(), NOW_UNIX_S, export_root=tmp_path / "root.pem")
        assert state.credential() is None
        assert state.root_key() is None


def test_a_member_founds_no_second_mesh(mesh: MeshOfMembers) -> None:
    with pytest.raises(AlreadyMember, match="nothing was changed"):
        found_mesh(mesh.state("founder"), mesh.identity("founder"), NOW_UNIX_S)


def test_a_founding_cut_short_by_a_crash_is_carried_on(tmp_path: Path) -> None:
    """The root key was stored, the credential was not."""
    with StateDirectory.open(tmp_path / "state") as state:
        root = SigningKey.generate()
        state.save_root_key(root)
        founded = found_mesh(state, state.identity(), NOW_UNIX_S)
    assert founded.mesh == mesh_id_of(root.public_key)


def test_a_founder_may_be_a_client(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path / "state") as state:
        found_mesh(state, state.identity(), NOW_UNIX_S, role=Role.CLIENT)
        standing = Admission(state, state.identity()).standing(NOW_UNIX_S)
    assert standing.role is Role.CLIENT


def test_a_node_of_no_mesh_is_told_how_to_get_into_one(tmp_path: Path) -> None:
    with StateDirectory.open(tmp_path / "state") as state, pytest.raises(NotAMember, match="--join TOKEN"):
        Admission(state, state.identity())


def test_a_member_restarts_without_its_token_and_without_anybody_online(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    restarted = mesh.member("member")
    assert restarted.chain == member.chain
    assert restarted.standing(NOW_UNIX_S + 10**9).role is Role.WORKER


def test_a_member_knows_its_peers_after_a_restart(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    mesh.state("founder").save_known_peers([KnownPeer(member.identity.node, (), member.chain)])
    restarted = mesh.member("founder")
    assert restarted.roll.members() == tuple(sorted((mesh.founder.identity.node, member.identity.node)))


def test_a_known_peer_s_rotten_chain_is_left_out(mesh: MeshOfMembers) -> None:
    stranger = Key("stranger")
    mesh.state("founder").save_known_peers([KnownPeer(stranger.node, (), a_chain(stranger))])
    assert mesh.member("founder").roll.lineage(stranger.node) is None


def test_a_member_that_answers_with_a_worthless_chain_is_not_believed(mesh: MeshOfMembers) -> None:
    with pytest.raises(BadCredential):
        take_membership(mesh.state("joiner"), mesh.identity("joiner"), mesh.founder.mesh, mesh.founder.chain)
    assert mesh.state("joiner").credential() is None


def test_a_credential_of_a_replaced_key_is_told(mesh: MeshOfMembers) -> None:
    (mesh.state("founder").path / "node.key").unlink()
    with pytest.raises(DamagedState, match=r"credential\.json: not this node's .*wrong_node.*restore the old one"):
        mesh.member("founder")


def test_a_root_key_of_another_mesh_is_told(mesh: MeshOfMembers) -> None:
    mesh.state("founder").save_root_key(SigningKey.generate())
    with pytest.raises(DamagedState, match="root key of another mesh"):
        mesh.member("founder")
