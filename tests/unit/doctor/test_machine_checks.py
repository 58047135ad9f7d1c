"""What is looked at on a machine without a running node, on real directories and ports."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from meshnode.config import load_config
from meshnode.doctor import Finding, Grade, PeerFacts, check_machine
from meshnode.doctor.engines import EngineBounds, EngineFacts, check_engines
from meshnode.doctor.machine import MachineFacts, look_at_machine
from meshnode.doctor.state_files import StateFacts, check_state, look_at_state
from meshnode.state import StateDirectory


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    with StateDirectory.open(path) as state:
        state.identity(machine="here")
        state.begin_incarnation()
    return path


def graded(facts: StateFacts, grade: Grade) -> list[Finding]:
    return [finding for finding in check_state(facts) if finding.grade is grade]


def machine_facts(tmp_path: Path, listen: str = "127.0.0.1:0") -> MachineFacts:
    config = load_config({"state_dir": tmp_path / "none", "listen": listen}, environment={}, file=Path(os.devnull))
    return look_at_machine(config, running=False)


def test_directory_as_the_node_makes_it_is_all_right(state_dir: Path) -> None:
    (finding,) = check_state(replace(look_at_state(state_dir), elsewhere=False))
    assert (finding.grade, finding.found) == (Grade.OK, "mode 0700, 3 file(s), all private and readable")


def test_missing_directory_is_no_fault_and_is_not_made(tmp_path: Path) -> None:
    (finding,) = check_state(look_at_state(tmp_path / "none"))
    assert finding.grade is Grade.OK
    assert not (tmp_path / "none").exists()


def test_rights_that_let_others_at_the_key_are_errors_with_the_command(state_dir: Path) -> None:
    (state_dir / "node.key").chmod(0o640)
    state_dir.chmod(0o775)
    advice = {finding.advice for finding in graded(look_at_state(state_dir), Grade.ERROR)}
    assert {f"chmod 700 {state_dir}", f"chmod 600 {state_dir / 'node.key'}"} <= advice


def test_damaged_file_is_an_error_that_names_it(state_dir: Path) -> None:
    (state_dir / "peers.json").write_text("{")
    errors = graded(replace(look_at_state(state_dir), elsewhere=False), Grade.ERROR)
    assert [finding.subject for finding in errors] == [str(state_dir / "peers.json")]


def test_file_of_a_newer_meshnode_is_an_error_with_advice(state_dir: Path) -> None:
    (state_dir / "peers.json").write_text('{"format": 99}')
    (error,) = graded(replace(look_at_state(state_dir), elsewhere=False), Grade.ERROR)
    assert "newer meshnode (format 99" in error.found
    assert error.advice.startswith("upgrade meshnode")


def test_directory_from_another_machine_is_an_error(state_dir: Path) -> None:
    (finding,) = graded(replace(look_at_state(state_dir), elsewhere=True), Grade.ERROR)
    assert (finding.check, "--accept-moved-state" in finding.advice) == ("identity", True)


def test_file_in_the_directory_s_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (finding,) = check_state(look_at_state(tmp_path / "file"))
    assert (finding.grade, finding.found) == (Grade.ERROR, "it is no directory")


def test_full_disk_and_foreign_files_are_warnings(state_dir: Path) -> None:
    facts = replace(look_at_state(state_dir), free_bytes=1_000_000, owner=12345, elsewhere=False)
    found = {finding.found for finding in graded(facts, Grade.WARNING)}
    assert "1MB free on its file system" in found
    assert any("the directory to user 12345" in text for text in found)


def test_port_in_use_names_its_holder(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        facts = machine_facts(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}")
    (port,) = [finding for finding in check_machine(facts) if finding.check == "port"]
    assert port.grade is Grade.ERROR
    assert f"by process {os.getpid()}" in port.found


def test_process_limit_below_the_offer_is_an_error(tmp_path: Path) -> None:
    facts = machine_facts(tmp_path)
    limited = replace(facts, limits={"RLIMIT_AS": 1_000_000_000}, open_files=64)
    by_subject = {finding.subject: finding for finding in check_machine(limited) if finding.check == "limits"}
    assert by_subject["RLIMIT_AS"].grade is Grade.ERROR
    assert "LimitAS=infinity" in by_subject["RLIMIT_AS"].advice
    assert by_subject["RLIMIT_NOFILE"].grade is Grade.WARNING


def test_memory_that_exceeds_what_is_there_is_a_warning(tmp_path: Path) -> None:
    flags = {"state_dir": tmp_path, "declare_usable": "90TB", "listen": "127.0.0.1:0"}
    config = load_config(flags, environment={}, file=Path(os.devnull))
    (memory,) = [one for one in check_machine(look_at_machine(config, running=True)) if one.check == "memory"]
    assert (memory.grade, memory.subject) == (Grade.WARNING, "declare_usable")


def test_engine_that_is_missing_is_a_warning_with_its_reason_and_a_client_needs_none() -> None:
    (missing,) = check_engines(EngineFacts(False, None, "no llama.cpp was found", "install it"))
    assert (missing.grade, missing.advice) == (Grade.WARNING, "install it")
    assert "no llama.cpp was found" in missing.found
    (needless,) = check_engines(EngineFacts(True, None))
    assert needless.grade is Grade.OK


@pytest.mark.parametrize(
    ("here", "there", "fits"),
    [("7.0.0", "7.0.0", True), ("7.1.0", "7.0.0", True), ("7.0.0", "7.1.0", True), ("7.0.0", "6.0.0", False)],
)
def test_engines_of_a_mesh_must_fit_together(here: str, there: str, fits: bool) -> None:
    peer = PeerFacts("b" * 52, "study", "alive", engine=f"llama.cpp rpc {there}")
    found = check_engines(EngineFacts(False, f"llama.cpp rpc {here}", devices=("cpu",)), [peer])
    assert "its devices: CPU" in found[0].found
    assert [one.subject for one in found[1:]] == ([] if fits else [peer.called])


def test_engine_processes_that_read_what_the_node_reads_are_a_warning() -> None:
    for landlock, grade in ((7, Grade.OK), (0, Grade.WARNING)):
        facts = EngineFacts(False, "llama.cpp rpc 7.0.0", bounds=EngineBounds(True, landlock, True))
        found = check_engines(facts)[1]
        assert (found.grade, "a network of their own" in found.found) == (grade, True)
        assert bool(found.advice) is (grade is Grade.WARNING)


def test_engine_process_that_died_is_a_warning() -> None:
    facts = EngineFacts(False, "llama.cpp rpc 7.0.0", died=("stage of m: signal 9",) * 2)
    assert [one.found for one in check_engines(facts)[1:]] == ["stage of m: signal 9"]
