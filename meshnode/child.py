"""One call in a fresh Python process: JSON in, JSON out, gone afterwards.

Why not a pool: the daemon reads a model file or measures memory once in days. A child that ends gives all its memory
back (numpy, gguf and a vocabulary's million small objects never touch the daemon), and killing it is a clean way to
cancel.

A module that can be called this way has `main(argument) -> result` and ends with `serve(main)` under its main guard.
Used by `meshnode.resources.bandwidth` and `meshnode.models.load`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_MAX_STDERR_CHARACTERS = 2_000


@dataclass
class ChildFailed(Exception):
    """The child died or answered with something that is no JSON. `details` is the end of what it wrote to stderr."""

    module: str
    exit_code: int
    details: str

    def __str__(self) -> str:
        last_line = self.details.strip().splitlines()[-1:] or ["it wrote nothing"]
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"child process {self.module} ended with {how}: {last_line[0]}"


async def call_in_child(module: str, argument: Json) -> Json:
    """Run `module`'s `main(argument)` in a child process and return its result. Cancelling kills the child.

    Raises `ChildFailed` when it dies; errors of the domain are part of the result, as `module` defines it.
    """
    import anyio

    done = await anyio.run_process(
        _command(module), input=json.dumps(argument).encode(), check=False, env=child_environment()
    )
    return _result(module, done.returncode, done.stdout, done.stderr)


def call_in_child_blocking(module: str, argument: Json, *, timeout_s: float | None = None) -> Json:
    """`call_in_child` for callers without an event loop. Raises `subprocess.TimeoutExpired` after `timeout_s`."""
    done = subprocess.run(
        _command(module),
        input=json.dumps(argument).encode(),
        capture_output=True,
        timeout=timeout_s,
        check=False,
        env=child_environment(),
    )
    return _result(module, done.returncode, done.stdout, done.stderr)


def serve(main: Callable[[Json], Json]) -> None:
    """The child's side: one argument from stdin, one result to stdout. Prints of libraries go to stderr instead."""
    answer_file = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with answer_file:
        json.dump(main(json.load(sys.stdin)), answer_file)


def _command(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environment` (this process's) with what a Python child needs to find this very package, installed or a checkout,
    wherever it was started."""
    given = os.environ if environment is None else environment
    package_root = str(Path(__file__).resolve().parent.parent)
    paths = [package_root, *filter(None, [given.get("PYTHONPATH")])]
    return {**given, "PYTHONPATH": os.pathsep.join(paths)}


def _result(module: str, exit_code: int, stdout: bytes, stderr: bytes) -> Json:
    details = stderr.decode("utf-8", "replace")[-_MAX_STDERR_CHARACTERS:]
    if exit_code != 0:
        raise ChildFailed(module, exit_code, details)
    try:
        answer: Json = json.loads(stdout)
        return answer
    except ValueError as error:
        raise ChildFailed(module, exit_code, f"answer is no JSON: {error}\n{details}") from error
