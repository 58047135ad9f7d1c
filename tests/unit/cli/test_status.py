"""How `meshnode status` tells of splits."""

from __future__ import annotations

from meshnode.cli.status import _lines, _split, _tunnels

NODE = "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2q"
NAMES = {NODE: "attic"}


def test_stage_for_another_node_has_its_last_layer_and_the_coordinators_name() -> None:
    split = {"state": "stage", "model": "m", "layer_start": 6, "layer_end": 12, "coordinator": NODE}
    assert _split(split, NAMES) == "m: layers 6-11 for mfrggzdfmz (attic)"


def test_tunnels_are_told_by_peer_with_its_name() -> None:
    tunnel = {"peer": NODE, "purpose": "engine", "carrier": "tcp", "sent_bytes": 10**9, "received_bytes": 0}
    _, (_, line) = _tunnels({"tcp_port": 4411, "open": [tunnel]}, NAMES)
    assert line.startswith("1 for engine with mfrggzdfmz (attic) over tcp: 1.0GB out")


def test_whole_node_id_is_there_to_copy_as_a_wrong_peer_flag_says() -> None:
    status = {
        "node": NODE, "short": NODE[:10], "name": "attic", "role": "worker", "uptime_s": 1.0, "pid": 1, "version": "0",
        "mesh": {"mesh": "m" * 52, "declared": False, "unknown_offers": 0, "usable_bytes": 0, "nodes": {}, "links": {}},
        "listen": ["[::]:4411"], "addresses": ["192.0.2.1:4411"], "splits": [], "state_directory": "/s",
    }  # fmt: skip
    assert ("node id", NODE) in _lines(status, NAMES)
