"""How `meshnode peers` tells where a peer is."""

from __future__ import annotations

from meshnode.cli.peers import _where

NODE = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q"


def test_relayed_peer_is_said_to_be_reached_through_its_neighbour() -> None:
    relayed = {"path": "relayed", "address": "", "carrier": NODE}
    assert _where(relayed, {NODE: "attic"}) == "through attic"
    assert _where(relayed, {}) == "through mfrggzdfmz"
    assert _where({"path": "direct", "address": "192.0.2.1:4411", "carrier": None}, {}) == "192.0.2.1:4411"
