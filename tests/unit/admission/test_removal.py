"""Who can remove whom, who goes along, who is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from making_members import NOW_UNIX_S, Key
from mesh_of_members import MeshOfMembers

from meshnode.admission import Admission, AdmissionError, Removal, read_root_key
from meshnode.admission.errors import MayNotInvite, MayNotRemove, UnknownNode
from meshnode.durable import DamagedState, StateError
from meshnode.identity import SigningKey, export_key_file
from proto.credential import BadCredential, BadCredentialReason
from proto.revocation import MAX_KEPT


def removes(remover: Admission, node: Admission, *keep: Admission) -> Removal:
    plan = remover.plan_removal(node.identity.node, NOW_UNIX_S)
    return remover.remove(plan, [one.identity.node for one in keep], NOW_UNIX_S)


def is_out(admission: Admission, at: Admission) -> bool:
    """True where the node's own chain opens no door at `at`."""
    try:
        at.roll.admit(admission.identity.node, admission.chain, NOW_UNIX_S)
    except BadCredential as error:
        return error.reason is BadCredentialReason.REVOKED
    return False


def a_family(mesh: MeshOfMembers) -> tuple[Admission, Admission, Admission]:
    """`parent` let in `child`, who let in `grandchild`; the founder has seen all three."""
    parent = mesh.joins("parent", mesh.founder, may_invite=True)
    child = mesh.joins("child", parent, may_invite=True)
    grandchild = mesh.joins("grandchild", child)
    mesh.introduce(mesh.founder, parent, child, grandchild)
    return parent, child, grandchild


def test_the_root_removes_a_member(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    removal = removes(mesh.founder, member)
    assert removal.removed == (member.identity.node,)
    assert is_out(member, mesh.founder)
    assert mesh.founder.roll.is_cut(member.identity.node)


def test_descendants_are_listed_before_anything_happens(mesh: MeshOfMembers) -> None:
    parent, child, grandchild = a_family(mesh)
    plan = mesh.founder.plan_removal(parent.identity.node, NOW_UNIX_S)
    assert set(plan.descendants) == {child.identity.node, grandchild.identity.node}
    assert not is_out(parent, mesh.founder)


def test_a_removal_takes_every_chain_through_the_node(mesh: MeshOfMembers) -> None:
    parent, child, grandchild = a_family(mesh)
    removal = removes(mesh.founder, parent)
    assert set(removal.removed) == {one.identity.node for one in (parent, child, grandchild)}
    assert all(is_out(one, mesh.founder) for one in (parent, child, grandchild))


def test_who_was_taken_along_is_known_afterwards(mesh: MeshOfMembers) -> None:
    parent, child, grandchild = a_family(mesh)
    removal = removes(mesh.founder, parent, child)
    assert not removal.learned.adopted
    assert mesh.founder.roll.taken_along(parent.identity.node) == (grandchild.identity.node,)
    assert mesh.founder.roll.descendants(parent.identity.node) == (child.identity.node,)


def test_a_removal_leaves_others_alone(mesh: MeshOfMembers) -> None:
    _, child, _ = a_family(mesh)
    bystander = mesh.joins("bystander", mesh.founder)
    removes(mesh.founder, child)
    assert not is_out(bystander, mesh.founder)
    assert not is_out(mesh.member("parent"), mesh.founder)


def test_an_ancestor_that_is_not_the_root_removes_what_it_let_in(mesh: MeshOfMembers) -> None:
    parent, _, grandchild = a_family(mesh)
    learned = mesh.founder.learn(removes(parent, grandchild).entries, NOW_UNIX_S)
    assert learned.nodes == (grandchild.identity.node,)
    assert is_out(grandchild, mesh.founder)


def test_a_child_does_not_remove_its_parent(mesh: MeshOfMembers) -> None:
    parent, child, _ = a_family(mesh)
    with pytest.raises(MayNotRemove, match="it is not above it"):
        child.plan_removal(parent.identity.node, NOW_UNIX_S)


def test_who_could_remove_a_node_is_named(without_root: MeshOfMembers) -> None:
    _, child, grandchild = a_family(without_root)
    bystander = without_root.joins("bystander", without_root.founder, may_invite=True)
    without_root.introduce(bystander, grandchild)
    with pytest.raises(MayNotRemove) as caught:
        bystander.plan_removal(grandchild.identity.node, NOW_UNIX_S)
    assert child.identity.node in caught.value.above
    assert child.identity.node[:10] in caught.value.text + caught.value.advice


def test_an_unknown_node_is_told(without_root: MeshOfMembers) -> None:
    with pytest.raises(UnknownNode, match="meshnode peers"):
        without_root.founder.plan_removal(Key("nobody").node, NOW_UNIX_S)


def test_the_root_removes_a_node_it_never_saw(mesh: MeshOfMembers) -> None:
    node = Key("known by name only").node
    mesh.founder.remove(mesh.founder.plan_removal(node, NOW_UNIX_S), (), NOW_UNIX_S)
    assert mesh.founder.roll.is_cut(node)


def test_a_node_does_not_remove_itself(mesh: MeshOfMembers) -> None:
    with pytest.raises(AdmissionError, match="meshnode leave"):
        mesh.founder.plan_removal(mesh.founder.identity.node, NOW_UNIX_S)


def test_a_kept_descendant_stays_a_member_with_the_chain_it_shows(mesh: MeshOfMembers) -> None:
    """Others know its new chain from the removal itself, before the node does."""
    parent, child, grandchild = a_family(mesh)
    removal = removes(mesh.founder, parent, child)
    assert removal.kept == (child.identity.node,)
    assert not is_out(child, mesh.founder)
    assert not mesh.founder.roll.is_cut(child.identity.node)
    assert is_out(grandchild, mesh.founder)


def test_a_kept_node_takes_up_its_new_chain_when_it_learns_of_the_removal(mesh: MeshOfMembers) -> None:
    parent, child, _ = a_family(mesh)
    learned = child.learn(removes(mesh.founder, parent, child).entries, NOW_UNIX_S)
    assert learned.adopted
    assert child.standing(NOW_UNIX_S).nodes == (child.identity.node,)
    assert mesh.member("child").chain == child.chain


def test_a_kept_node_keeps_its_rights(mesh: MeshOfMembers) -> None:
    parent, child, _ = a_family(mesh)
    child.learn(removes(mesh.founder, parent, child).entries, NOW_UNIX_S)
    newcomer = mesh.joins("newcomer", child)
    assert newcomer.standing(NOW_UNIX_S).nodes == (child.identity.node, newcomer.identity.node)


def test_more_nodes_are_kept_than_one_revocation_holds(mesh: MeshOfMembers) -> None:
    parent = mesh.joins("parent", mesh.founder, may_invite=True)
    children = [mesh.joins(f"child {number}", parent) for number in range(MAX_KEPT + 1)]
    mesh.introduce(mesh.founder, *children)
    removal = removes(mesh.founder, parent, *children)
    assert len(removal.entries) == 2
    assert not any(is_out(child, mesh.founder) for child in children)


def test_only_descendants_can_be_kept(mesh: MeshOfMembers) -> None:
    parent, _, _ = a_family(mesh)
    bystander = mesh.joins("bystander", mesh.founder)
    with pytest.raises(UnknownNode, match="does not descend"):
        removes(mesh.founder, parent, bystander)
    assert not is_out(parent, mesh.founder)


def test_a_removal_is_known_after_a_restart(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder)
    removes(mesh.founder, member)
    assert is_out(member, mesh.member("founder"))


def test_a_removed_node_knows_it(mesh: MeshOfMembers) -> None:
    member = mesh.joins("member", mesh.founder, may_invite=True)
    member.learn(removes(mesh.founder, member).entries, NOW_UNIX_S)
    with pytest.raises(BadCredential):
        member.standing(NOW_UNIX_S)
    with pytest.raises(MayNotInvite, match="was removed"):
        mesh.invite(member)


def test_a_removed_ancestor_removes_nobody_any_more(without_root: MeshOfMembers) -> None:
    mesh = without_root
    parent, child, _ = a_family(mesh)
    parent.learn(removes(mesh.founder, parent).entries, NOW_UNIX_S)
    with pytest.raises(MayNotRemove):
        parent.plan_removal(child.identity.node, NOW_UNIX_S)


def test_a_revocation_learned_twice_is_new_once(mesh: MeshOfMembers) -> None:
    parent, _, grandchild = a_family(mesh)
    entries = removes(parent, grandchild).entries
    assert mesh.founder.learn(entries, NOW_UNIX_S).new == entries
    assert mesh.founder.learn(entries, NOW_UNIX_S).new == ()


def test_one_bad_revocation_in_a_frame_does_not_hide_the_others(mesh: MeshOfMembers) -> None:
    parent, _, grandchild = a_family(mesh)
    entries = removes(parent, grandchild).entries
    learned = mesh.founder.learn((b"rubbish", *entries), NOW_UNIX_S)
    assert (learned.new, len(learned.refused)) == (entries, 1)


def test_a_full_disk_does_not_keep_a_removed_node_in(mesh: MeshOfMembers, monkeypatch: pytest.MonkeyPatch) -> None:
    member = mesh.joins("member", mesh.founder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        removal = removes(mesh.founder, member)
    assert isinstance(removal.learned.unsaved, StateError)
    assert is_out(member, mesh.founder)


def test_every_link_opens_with_a_list_even_of_nothing(mesh: MeshOfMembers) -> None:
    (frame,) = mesh.founder.revocation_frames()
    assert (frame.entries, frame.complete) == ((), True)


def test_a_long_list_comes_in_frames_of_which_the_last_is_complete(mesh: MeshOfMembers) -> None:
    for number in range(100):
        node = Key(f"removed {number}").node
        mesh.founder.remove(mesh.founder.plan_removal(node, NOW_UNIX_S), (), NOW_UNIX_S)
    frames = list(mesh.founder.revocation_frames())
    assert [frame.complete for frame in frames] == [False, False, True]
    assert len({entry for frame in frames for entry in frame.entries}) == 100


def test_an_exported_root_key_removes_the_founder_and_keeps_the_rest(
    without_root: MeshOfMembers, tmp_path: Path
) -> None:
    """The founder's machine was stolen; the root key lay elsewhere."""
    mesh = without_root
    member = mesh.joins("member", mesh.founder, may_invite=True)
    root = read_root_key(tmp_path / "root.pem", member.mesh)
    plan = member.plan_removal(mesh.founder.identity.node, NOW_UNIX_S, root)
    assert plan.descendants == (member.identity.node,)
    member.remove(plan, plan.descendants, NOW_UNIX_S)
    assert is_out(mesh.founder, member)
    assert member.standing(NOW_UNIX_S).nodes == (member.identity.node,)


def test_another_mesh_s_root_key_is_refused(without_root: MeshOfMembers, tmp_path: Path) -> None:
    export_key_file(tmp_path / "other.pem", SigningKey.generate())
    with pytest.raises(StateError, match="root key of mesh"):
        read_root_key(tmp_path / "other.pem", without_root.founder.mesh)
    with pytest.raises(StateError, match="no such file"):
        read_root_key(tmp_path / "missing.pem", without_root.founder.mesh)


def test_the_founder_that_keeps_the_root_leaves_its_guests_in_when_it_goes(mesh: MeshOfMembers) -> None:
    """It issued as the root: nobody's chain passes through the founder's own credential."""
    member = mesh.joins("member", mesh.founder)
    assert member.standing(NOW_UNIX_S).nodes == (member.identity.node,)


def test_a_damaged_revocation_file_says_that_nothing_is_lost_by_deleting_it(mesh: MeshOfMembers) -> None:
    path = mesh.state("founder").path / "revocations.json"
    path.write_text('{"format": 1, "entries": ["cnViYmlzaA=="]}')
    with pytest.raises(DamagedState, match="delete it: every member sends its revocations"):
        mesh.member("founder")
