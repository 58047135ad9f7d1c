"""llama.cpp's own programs: found and tried out, answering in lanes, named when they end, and by hand as exported."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shlex
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import psutil
import pytest
from asking_models import Json, ModelClient
from engine_meshes import (
    LLAMA_SERVER,
    MODEL,
    PACE,
    RPC_SERVER,
    SPREAD,
    client_of,
    program_options,
    programs,
    programs_of,
)
from making_nodes import MESHNODE, Nodes, RunningNode, environment

from meshnode.child import child_environment
from meshnode.engine.commands import WATCHED, llama_server_command
from meshnode.engine.confinement.program import confined_command
from meshnode.engine.confinement.reach import Reach
from meshnode.engine.devices import engine_environment
from meshnode.engine.export import llama_cpp_lines
from meshnode.engine.found import EngineKind, NoEngine, find_engine
from meshnode.engine.process import running
from meshnode.engine.serving.process import EngineDevice
from planner.workload import Workload

pytestmark = pytest.mark.engine

PROMPTS = ("The capital of France is", "Once upon a time", "Two plus two is")
LAYER = re.compile(r"load_tensors: layer +(\d+) assigned to device (\w+)")


async def test_programs_are_tried_out_before_anybody_plans_with_them() -> None:
    rpc_server, llama_server = programs() / RPC_SERVER, programs() / LLAMA_SERVER
    engine = await find_engine(rpc_server, llama_server)
    assert engine.kind is EngineKind.PROGRAMS
    assert engine.version.startswith("llama.cpp ")
    assert engine.rpc_version.major >= 7
    with pytest.raises(NoEngine, match="does not take the options that llama-server should"):
        await find_engine(rpc_server, rpc_server)
    with pytest.raises(NoEngine, match="/bin/true ended: exit code 0"):
        await find_engine(Path("/bin/true"), llama_server)
    with pytest.raises(NoEngine, match=r"there is .*, but llama-server is not on PATH"):
        await find_engine(rpc_server, None)


async def test_peer_with_another_version_of_the_protocol_is_told_as_that(gguf: Path, tmp_path: Path) -> None:
    with a_server_of_version(6, 0, 0) as port:
        devices = (EngineDevice(19, endpoint=f"127.0.0.1:{port}"),)
        program, host = str(programs() / LLAMA_SERVER), str(tmp_path / "m.sock")
        words = llama_server_command(OldPeer(), program, str(gguf), devices, host=host, threads=1)
        command = confined_command([*words, *WATCHED], Reach(reads=(str(gguf),), binds=(str(tmp_path),)), [port])
        async with running(command, child_environment(engine_environment(()))) as process:
            with anyio.fail_after(60):
                ending = await process.wait()
    assert ending.how == "signal SIGABRT"
    # The versions stand in a line before, which its log's own thread often takes along when the process aborts. A mesh
    # compares them before it plans.
    assert "RPC handshake failed" in str(ending)


def test_lanes_answer_side_by_side_and_whatever_ends_is_named(nodes: Nodes, gguf: Path) -> None:
    options = (*PACE, *program_options())
    attic = nodes.start(
        "attic", *options, "--declare-usable", "900MB", *SPREAD, "--quorum", "2", "--lanes", "3", "--context", "1024",
        "--model", str(gguf),
    )  # fmt: skip
    token = attic.invite()
    study = nodes.start("study", *options, "--declare-usable", "900MB", "--model-dir", str(gguf.parent), token=token)
    attic.wait_event("split.serving", within_s=120)
    assert attic.events("split.loading")
    client = client_of(study)
    client.wait_answer(MODEL, PROMPTS[0])

    assert_lanes_overlap(client)
    over = client.complete(MODEL, "word " * 1100)
    assert (over.status, over.content["error"]["code"]) == (400, "context_length_exceeded")
    stalling = client.complete(MODEL, "x", grammar='root ::= (("a"?){44}){44}')
    assert (stalling.status, stalling.content["error"]["param"]) == (400, "grammar")

    (server,) = programs_of(attic, LLAMA_SERVER)
    assert_least_rights(server)
    assert_named(attic, client, server, f"{attic.node[:10]}: the model's engine process ended: signal SIGSEGV")
    (stage,) = programs_of(study, RPC_SERVER)
    assert_named(attic, client, stage, f"{study.node[:10]}: the stage's engine process ended: signal SIGSEGV")


def assert_lanes_overlap(client: ModelClient) -> None:
    """Three long answers are being made at a time: each begins before another has ended."""
    spans: list[tuple[float, float]] = []

    def answer(prompt: str) -> int:
        times = [time.monotonic() for _ in client.stream(MODEL, prompt, 48, ignore_eos=True)]
        spans.append((times[0], times[-1]))
        return len(times)

    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        counts = [each.result() for each in [threads.submit(answer, prompt) for prompt in PROMPTS]]
    assert min(counts) > 10
    assert max(begin for begin, _ in spans) < min(end for _, end in spans)


def assert_least_rights(process: psutil.Process) -> None:
    """As the package's own process: no capabilities, no new privileges, no core dump."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)


def assert_named(attic: RunningNode, client: ModelClient, victim: psutil.Process, expected: str) -> None:
    """`victim` crashes while an answer is made, which says so; then the split serves again."""
    serving = attic.events("split.serving")[-1]["generation"]
    last: Json = {}
    for number, event in enumerate(client.stream(MODEL, PROMPTS[1], 900)):
        last = event
        if number == 5:
            os.kill(victim.pid, signal.SIGSEGV)
    assert last["error"]["code"] == "engine_lost"
    assert expected in last["error"]["message"]
    assert PROMPTS[1] not in str(attic.events("engine.died"))
    attic.wait_event("split.serving", lambda event: event["generation"] > serving, within_s=120)
    assert client.wait_answer(MODEL, PROMPTS[0], within_s=120).status == 200


def test_exported_command_lines_run_as_they_are(gguf: Path, tmp_path: Path) -> None:
    """Three nodes of a plan, whose coordinator's own CPU has the last layers."""
    lines = exported(gguf, tmp_path)
    for name, program in (("rpc-server", RPC_SERVER), ("llama-server", LLAMA_SERVER)):
        (tmp_path / name).symlink_to(programs() / program)
    variables = {**engine_environment(()), "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    with ExitStack() as stack:
        for line in lines[:-1]:
            wait_until_listening(stack.enter_context(started(line, variables)))
        model = stack.enter_context(started(f"{lines[-1]} --port 0 --verbosity 5", variables))
        log = read_until(model, "listening on http://")
        placed = {int(found[1]): found[2] for line in log if (found := LAYER.search(line))}
        assert [placed[layer] for layer in range(19)] == ["RPC0"] * 6 + ["RPC1"] * 6 + ["RPC2"] * 7
        client = ModelClient(log[-1].partition("listening on ")[2] + "/v1")
        answer = client.complete(MODEL, PROMPTS[0], 8)
        assert (answer.status, answer.content["usage"]["completion_tokens"]) == (200, 8)


# --- pieces ---


class OldPeer:
    """What is served, as far as a command line needs it."""

    model = "m"
    context = 256
    workload = Workload(context=256)


@contextmanager
def a_server_of_version(*version: int) -> Iterator[int]:
    """The port of an RPC server that says its version and nothing else (ggml-rpc.cpp, `RPC_CMD_HELLO`)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(struct.pack("<Q", 28) + bytes(version) + bytes(28 - len(version)))
                connection.recv(1024)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]


def exported(gguf: Path, tmp_path: Path) -> list[str]:
    """The commands for a plan of three nodes in which the coordinator comes last. Each worker is somewhere else on
    loopback, where no other test is."""
    nodes = tmp_path / "nodes.toml"
    node = '[[node]]\nid = "{}"\nhost_usable_bytes = "2GB"\n[[node.device]]\nid = "cpu"\nusable_bytes = "900MB"'
    sizes = "\n".join(map(node.format, "abc"))
    nodes.write_text(f'coordinator = "c"\nlinks = "free"\n{sizes}\n')
    words = ["plan", str(gguf), "--nodes", str(nodes), "--context", "1024", "--objective", "proportional"]
    done = subprocess.run(
        [*MESHNODE, *words, "--min-stages", "3", "--json", "--state-dir", str(tmp_path / "state")],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    rng = random.Random(os.getpid())
    hosts = {node: f"127.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}" for node in "ab"}
    lines = llama_cpp_lines(json.loads(done.stdout), str(gguf), {}, hosts)
    return [line for line in lines if line and not line.startswith("#")]


@contextmanager
def started(line: str, variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command line, run as it is until the block ends."""
    words = shlex.split(line)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables)
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until_listening(process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not any(each.status == "LISTEN" for each in psutil.Process(process.pid).net_connections()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], last: str) -> list[str]:
    """Lines of its log up to one with `last` in it."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if last in line:
            return lines
    raise AssertionError("\n".join(lines[-40:]))
