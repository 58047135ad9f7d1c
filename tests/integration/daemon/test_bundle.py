"""`meshnode bundle` of a real node: what is in it, what is not, and its bounds."""

from __future__ import annotations

import base64
import json
import stat
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from making_nodes import Nodes, RunningNode

from meshnode.bundle import BundleRedactor, Piece, archive, write_bundle


def texts_of(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as found:
        return {name: found.read(name).decode() for name in found.namelist()}


def secrets_of(node: RunningNode) -> list[str]:
    """Every secret that this node has on disk, in the ways it may be written."""
    found = [(node.state / "control-token").read_text().strip()]
    for path in node.state.glob("*.key"):
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        raw = key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        found += [raw.hex(), base64.b64encode(raw).decode()[:40], base64.urlsafe_b64encode(raw).decode()[:40]]
        found += [line for line in path.read_text().splitlines() if "-----" not in line]
    chain = json.loads((node.state / "credential.json").read_text())["chain"]
    return [*found, *chain]


def test_bundle_tells_of_the_node_and_holds_none_of_its_secrets(nodes: Nodes, tmp_path: Path) -> None:
    attic = nodes.start("attic", "--control-tcp", "127.0.0.1:0", "--advertise", "203.0.113.7:4411")
    token = attic.invite()
    node = attic.node
    file = tmp_path / "b.zip"
    # What a log must never hold, but a careless library might write.
    with attic.log.open("a") as log:
        log.write(json.dumps({"text": f"pasted {token}", "more": secrets_of(attic)}) + "\n")
    made = attic.json("bundle", "-o", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made["left_out"] == []
    texts = texts_of(file)
    assert {"status.json", "doctor.json", "events.jsonl", "versions.json", "log-tail.jsonl"} <= set(texts)
    assert json.loads(texts["status.json"])["node"] == node
    assert json.loads(texts["config.json"])["advertise"] == ["203.0.113.7:4411"]
    assert "node.started" in texts["events.jsonl"]
    whole = "\n".join(texts.values())
    assert [secret for secret in (token, *secrets_of(attic)) if secret in whole] == []
    assert "203.0.113.7" in whole
    again = attic.ask("bundle", "-o", str(file))
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    attic.verb("bundle", "-o", str(tmp_path / "hidden.zip"), "--hide-addresses")
    hidden = "\n".join(texts_of(tmp_path / "hidden.zip").values())
    assert "203.0.113.7" not in hidden
    assert json.loads(texts_of(tmp_path / "hidden.zip")["config.json"])["advertise"] == ["[address 1]:4411"]
    assert attic.stop() == 0
    attic.verb("bundle", "-o", str(tmp_path / "down.zip"))
    down = texts_of(tmp_path / "down.zip")
    assert json.loads(down["doctor.json"])["running"] is False
    assert {"status.json", "events.jsonl"}.isdisjoint(down)


def test_bundle_is_bounded_and_keeps_the_end_of_what_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_PIECE_BYTES", 20_000)
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 50_000)
    lines = "".join(f"line {number}\n" for number in range(4_000))
    many = [Piece(f"log{number}", lines, is_lines=True) for number in range(4)]
    notes = write_bundle(tmp_path / "b.zip", [Piece("big.json", ["x" * 30_000]), *many], BundleRedactor())
    texts = texts_of(tmp_path / "b.zip")
    assert set(texts) == {"log0", "log1", "log2", "left-out.txt"}
    assert texts["log0"].splitlines()[-1] == lines.splitlines()[-1]
    assert texts["log0"].startswith("line ")
    assert texts.pop("left-out.txt").splitlines() == notes
    assert max(map(len, texts.values())) <= 20_000
    assert sum(map(len, texts.values())) <= 50_000
    assert notes[0] == "big.json: too long, left out"
