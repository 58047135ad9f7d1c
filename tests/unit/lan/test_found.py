"""Announcements on the local network: anybody there can say anything."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making_members import MESH, Key

from meshnode.lan import LanUnavailable, announced, look_around
from meshnode.lan.found import MAX_ADDRESSES, MAX_NAME, FoundMember, by_mesh, read_announcement

NODE = Key("member").node
SAID: dict[bytes, bytes | None] = {b"mesh": MESH.encode(), b"node": NODE.encode(), b"name": b"attic"}


def test_a_whole_announcement_is_a_member_with_its_local_addresses() -> None:
    hosts = ["192.168.1.5", "fd00::5", "fe80::1%eth0"]
    assert read_announcement(SAID, hosts, 4411) == FoundMember(
        MESH, NODE, "attic", ("192.168.1.5:4411", "[fd00::5]:4411", "[fe80::1%eth0]:4411")
    )


@pytest.mark.parametrize("key", [b"mesh", b"node"])
@pytest.mark.parametrize("value", [None, b"", b"x", b"\xff\xfe", b"A" * 52, b"a" * 51])
def test_ids_that_are_none_are_no_announcement(key: bytes, value: bytes | None) -> None:
    assert read_announcement({**SAID, key: value}, ["192.168.1.5"], 4411) is None


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "0.0.0.0", "224.0.0.251", "fe80::1", "attic.local", ""])
def test_addresses_beyond_the_local_network_are_not_taken(host: str) -> None:
    assert read_announcement(SAID, [host], 4411) is None


@pytest.mark.parametrize("port", [None, 0])
def test_no_port_is_no_announcement(port: int | None) -> None:
    assert read_announcement(SAID, ["192.168.1.5"], port) is None


@given(st.binary(max_size=200), st.lists(st.ip_addresses(v=4).map(str), max_size=20))
def test_names_and_addresses_are_bounded_and_printable(name: bytes, hosts: list[str]) -> None:
    found = read_announcement({**SAID, b"name": name}, ["10.0.0.1", *hosts], 4411)
    assert found is not None
    assert len(found.name) <= MAX_NAME
    assert found.name.isprintable()
    assert len(found.addresses) <= MAX_ADDRESSES


def test_meshes_are_grouped_and_a_member_counts_once() -> None:
    twice = [FoundMember(MESH, NODE, "attic", ("10.0.0.1:1",)), FoundMember(MESH, NODE, "attic", ("10.0.0.2:1",))]
    other = FoundMember(MESH, Key("other").node, "study", ("10.0.0.3:1",))
    (mesh,) = by_mesh([*twice, other])
    assert (mesh.fingerprint, mesh.called, len(mesh.members)) == (MESH[:10], "attic, study", 2)


def test_missing_library_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(LanUnavailable, match="needs the library zeroconf") as caught:
        look_around(0.0)
    assert "meshnode[lan]" in caught.value.advice
    member = FoundMember(MESH, NODE, "attic", ("10.0.0.1:1",))
    with pytest.raises(LanUnavailable), announced(member):
        pass
