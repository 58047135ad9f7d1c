"""The command line's frame: verbs, errors, exit codes, and what a quick verb may not import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from meshnode.cli import _VERBS
from meshnode.models.refs import profile_names


def meshnode(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MESHNODE_")} | variables
    command = [sys.executable, "-m", "meshnode", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_has_help_with_examples(verb: str) -> None:
    command = import_module(f"meshnode.cli.{verb}").command
    assert isinstance(command, click.Command)
    text = command.get_help(click.Context(command, info_name=f"meshnode {verb}"))
    assert f"meshnode {verb}" in text
    assert verb in {"version", "demo"} or "Examples:" in text


def test_help_lists_every_verb_with_its_line() -> None:
    done = meshnode("--help")
    assert done.returncode == 0
    for verb, line in _VERBS.items():
        assert any(verb in shown and line[:30] in shown for shown in done.stdout.splitlines()), verb


def test_unknown_verb_names_the_nearest_and_is_bad_usage() -> None:
    done = meshnode("statsu")
    assert done.returncode == 2
    assert "there is no verb 'statsu'; did you mean `meshnode status`?" in done.stderr


def test_no_node_is_exit_code_3_with_what_to_do(tmp_path: Path) -> None:
    done = meshnode("status", "--state-dir", str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"error: no node runs with the state directory {tmp_path}",
        "  start it with `meshnode run`, or name another one's state directory with --state-dir",
    ]


def test_config_typo_is_exit_code_2_and_names_key_and_nearest(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('max_memroy = "1GB"\n')
    done = meshnode("run", "--config", str(file))
    assert done.returncode == 2
    assert done.stderr == (f"error: max_memroy: expected a known key; did you mean max_memory? (file {file}, line 1)\n")


def test_bad_size_is_exit_code_2_and_names_the_flag() -> None:
    done = meshnode("run", "--max-memory", "24 gigs")
    assert done.returncode == 2
    assert "max_memory: found '24 gigs', expected a size such as 24GB" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_speaks_json() -> None:
    answer = json.loads(meshnode("version", "--json").stdout)
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{answer["meshnode"]}"' in pyproject


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_program(shell: str) -> None:
    done = meshnode("completion", shell)
    assert done.returncode == 0
    assert "_MESHNODE_COMPLETE" in done.stdout


def test_completion_completes_verbs() -> None:
    done = meshnode(_MESHNODE_COMPLETE="bash_complete", COMP_WORDS="meshnode pe", COMP_CWORD="1")
    assert "plain,peers" in done.stdout


def test_quick_verbs_import_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, meshnode.cli\n"
        f"sys.argv = ['meshnode', 'status', '--state-dir', {str(tmp_path)!r}]\n"
        "try:\n    meshnode.cli.main()\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(eval(done.stdout))
    assert loaded.isdisjoint({"rich", "numpy", "gguf", "starlette", "uvicorn", "aioquic", "structlog", "planner"})


def test_package_of_another_distribution_in_place_of_ours_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto" / "__init__.py").write_text("# proto-plus installs a package of this name\n")
    code = "import sys; sys.argv = ['meshnode', 'version']; from meshnode.cli import main; main()"
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])},
    )  # fmt: skip
    assert done.returncode == 1
    assert "proto-plus" in done.stderr
    assert "pipx install meshnode" in done.stderr


def test_every_profile_named_in_an_example_is_there() -> None:
    texts = [meshnode("--help").stdout]
    for verb in _VERBS:
        command = import_module(f"meshnode.cli.{verb}").command
        texts.append(command.get_help(click.Context(command, info_name=f"meshnode {verb}")))
    named = re.findall(r"(?:meshnode (?:plan|split)|--model) ([a-z0-9][\w.-]+)", "\n".join(texts))
    assert len(named) >= 4
    assert set(named) <= set(profile_names())


def test_example_nodes_file_is_planned_and_names_a_machine_left_out() -> None:
    example = str(Path(__file__).parents[3] / "configs" / "nodes.example.toml")
    done = meshnode("plan", "llama-3.3-70b-q4_k_m", "--nodes", example, "--context", "16384", "--json")
    plan = json.loads(done.stdout)
    assert (done.returncode, plan["capacity_only"], plan["coordinator"]["node"]) == (0, False, "desktop")
    short = meshnode("plan", "qwen3-235b-a22b-4bit", "--nodes", example, "--json")
    assert short.returncode == 4
    assert [out["node"] for out in json.loads(short.stdout)["excluded"]] == ["sofa-laptop"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_state_directory_of_another_user_is_no_bad_usage(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    done = meshnode("status", "--state-dir", str(tmp_path))
    tmp_path.chmod(0o700)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert os.getuid() == 0 or "run the verb as the user the node runs as" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_node_of_another_user_is_not_said_to_be_down(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    ask = (
        "import os; from pathlib import Path; from meshnode.cli.client import ControlClient;"
        " os.setgid(65534); os.setuid(65534);"
        f" ControlClient(Path('/tmp/none.sock'), Path('{tmp_path}/state')).get('/v1/status')"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False, timeout=60)
    assert "can't look into it, nor see whether a node runs there" in done.stderr
