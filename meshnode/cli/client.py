"""Talks to a running node over its control socket, with the standard library alone: verbs must be quick.

What lives here: `ControlClient`, and the options by which a verb finds its node. What does not: printing
(`meshnode.cli.output`).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from meshnode.cli.failures import Failure
from meshnode.control.place import SocketPlaceError, noted_path, socket_path
from meshnode.exit_codes import BAD_USAGE, REFUSED, UNREACHABLE

Json = dict[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])

ANSWER_TIMEOUT_S = 30.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ControlClient:
    """One node, found by its control socket. Every call raises `Failure` with the exit code of what went wrong."""

    def __init__(self, path: Path, state_dir: Path) -> None:
        self._path = path
        self._state_dir = state_dir

    def get(self, route: str) -> Json:
        """The JSON of a GET."""
        return _object(self._ask("GET", route, None, ANSWER_TIMEOUT_S))

    def post(self, route: str, body: Json, *, timeout_s: float | None = ANSWER_TIMEOUT_S) -> Json:
        """The JSON of a POST."""
        return _object(self._ask("POST", route, body, timeout_s))

    def delete(self, route: str) -> Json:
        """The JSON of a DELETE."""
        return _object(self._ask("DELETE", route, None, ANSWER_TIMEOUT_S))

    def text(self, route: str) -> str:
        """The text of a GET."""
        return self._ask("GET", route, None, ANSWER_TIMEOUT_S).read().decode("utf-8", errors="replace")

    def names(self) -> dict[str, str]:
        """What people call the nodes of the mesh, by node id."""
        return {peer["node"]: peer["name"] for peer in self.get("/v1/peers")["peers"]}

    def lines(self, route: str, body: Json) -> Iterator[Json]:
        """The JSON objects of a streamed answer, as they come."""
        answer = self._ask("POST", route, body, None)
        while line := answer.readline():
            yield json.loads(line)

    def events(self, route: str) -> Iterator[Json]:
        """The data of a server-sent event stream, as it comes."""
        answer = self._ask("GET", route, None, None)
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def _ask(self, method: str, route: str, body: Json | None, timeout_s: float | None) -> http.client.HTTPResponse:
        connection = _UnixConnection(self._path, timeout_s)
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, route, content, {"Content-Type": "application/json"} if content else {})
            answer = connection.getresponse()
        except TimeoutError as error:
            raise Failure(f"the node did not answer within {timeout_s:g} s", "see its log", UNREACHABLE) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        if answer.status >= 400:
            raise _refused(answer.status, answer.read())
        return answer

    def _unreachable(self, error: Exception) -> Failure:
        advice = "start it with `meshnode run`, or name another one's state directory with --state-dir"
        if isinstance(error, PermissionError):
            return Failure(f"{self._path}: not yours to use", "run the verb as the user the node runs as", UNREACHABLE)
        if _is_closed_to_us(self._state_dir):
            what = f"{self._state_dir}: this user can't look into it, nor see whether a node runs there"
            return Failure(what, "run the verb as the user the node runs as", UNREACHABLE)
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            was_there = f" (nothing answers at {self._path}: {error.strerror})" if noted_path(self._state_dir) else ""
            return Failure(f"no node runs with the state directory {self._state_dir}{was_there}", advice, UNREACHABLE)
        return Failure(f"the node at {self._path} can't be reached: {error}", advice, UNREACHABLE)


def _is_closed_to_us(directory: Path) -> bool:
    try:
        directory.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(directory, os.R_OK | os.X_OK)


def _object(answer: http.client.HTTPResponse) -> Json:
    content: Json = json.loads(answer.read())
    return content


def _refused(status: int, content: bytes) -> Failure:
    try:
        error = json.loads(content)["error"]
        message, advice = str(error["message"]), str(error.get("advice", ""))
    except (ValueError, KeyError, TypeError):
        return Failure(f"the node answered {status}: {content[:200]!r}")
    return Failure(message, advice, BAD_USAGE if status == 400 else REFUSED)


def node_options(function: Function) -> Function:
    """`--state-dir` and `--config`: which node a verb is about."""
    state_dir = click.option(
        "--state-dir", type=click.Path(path_type=Path, readable=False), metavar="DIR",
        help="State directory of the node to ask (default: MESHNODE_STATE_DIR, the config, the XDG place).",
    )  # fmt: skip
    config = click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
        help="Config file of the node to ask.",
    )  # fmt: skip
    return state_dir(config(function))


def json_option(function: Function) -> Function:
    """`--json`: for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(function)


def client_of(state_dir: Path | None, config_file: Path | None) -> ControlClient:
    """The client of the node that the options name."""
    from meshnode.config import ConfigError, load_config

    try:
        config = load_config({"state_dir": state_dir}, file=config_file)
        path = config.control_socket or noted_path(config.state_dir)
        return ControlClient(path or socket_path(config.state_dir, None), config.state_dir)
    except (ConfigError, SocketPlaceError) as error:
        raise Failure(str(error), exit_code=BAD_USAGE) from error
