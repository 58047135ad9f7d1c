"""The daemon: one process, one event loop, every room of the node wired together in one task group.

What lives here: `run_node` and the order in which things start and stop. What does not: any rule of a room. Called by
`meshnode run`.

Starting: log, state directory (locked), identity, membership of a mesh (kept, founded or joined), endpoint, driver,
control socket, and only then `node.started` and `READY=1`. Stopping, on SIGTERM, SIGINT or a closed stdin where that
was asked for: the mesh is told `left`, links are closed, the control socket goes, the state directory is let go. A
second signal ends the process at once. On SIGHUP the log file is opened anew and the configuration read anew.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import anyio
import anyio.abc

from meshnode.admission import AdmissionError
from meshnode.config import ConfigError, NodeConfig
from meshnode.config.reload import Effect, compare, effect_of
from meshnode.config.values import SocketAddress
from meshnode.control.place import SocketPlaceError
from meshnode.durable import StateError
from meshnode.events import ConfigInvalid, ConfigReloaded, LibraryMessage, NodeStopped
from meshnode.joining.entering import enter
from meshnode.logs import EventLog, LogFile, catch_library_logs
from meshnode.node import Node, NodeFailed, Recent, Stop
from meshnode.service.notifying import feed_watchdog, port_holder
from meshnode.state import StateDirectory
from meshnode.transport.udp import ListenFailed

LOG_TICK_S = 5.0
SECOND_SIGNAL_EXIT = 130


class StartFailed(Exception):
    """The node can't start, or must not go on: one line that says why, one that says what to do."""

    def __init__(self, message: str, advice: str = "") -> None:
        self.message = message
        self.advice = advice
        super().__init__(message)


@contextmanager
def start_failures(listen: SocketAddress | None = None) -> Iterator[None]:
    """What the state directory, admission or the address to listen at refuse within becomes `StartFailed`; `listen` is
    that address where the config names it."""
    try:
        yield
    except StateError as error:
        raise StartFailed(f"{error.path}: {error.found}", error.fix) from error
    except AdmissionError as error:
        raise StartFailed(error.text, error.advice) from error
    except ListenFailed as error:
        if listen is not None:
            raise _listen_failure(error, listen) from error
        raise StartFailed(str(error), error.advice) from error


def run_node(
    config: NodeConfig,
    *,
    token: str | None = None,
    accept_moved_state: bool = False,
    stop_on_eof: bool = False,
    reload: Callable[[], NodeConfig] | None = None,
) -> None:
    """Run a node until it is told to stop. Blocks. `reload` reads the configuration anew, for SIGHUP; it may raise
    `ConfigError`. Raises `StartFailed`."""
    try:
        output = LogFile(config.log_file)
    except OSError as error:
        raise StartFailed(f"log_file {config.log_file}: {error.strerror}", "name a file this user may write") from error
    log = EventLog(output, log_format=config.log_format, level=config.log_level)
    catch_library_logs(log.emit)
    try:
        anyio.run(_run, config, log, reload, token, accept_moved_state, stop_on_eof)
    except StartFailed:
        raise
    except Exception:
        # A fault of this program: into the log as well, where the operator looks first, then up as it is.
        log.emit(LibraryMessage(logger="meshnode", text=traceback.format_exc()[-4000:]))
        raise
    finally:
        log.close()


async def _run(
    config: NodeConfig,
    log: EventLog,
    reload: Callable[[], NodeConfig] | None,
    token: str | None,
    accept_moved_state: bool,
    stop_on_eof: bool,
) -> None:
    await _Process(config, log, reload).run(token, accept_moved_state, stop_on_eof)


class _Process:
    """What the process adds to a node: signals, the log's upkeep, one kind of error for all that goes wrong."""

    def __init__(self, config: NodeConfig, log: EventLog, reload: Callable[[], NodeConfig] | None) -> None:
        self._config = config
        self._log = log
        self._reload = reload
        self._node: Node | None = None
        self._recent = Recent(log)
        self._stop = Stop()
        self._entering = anyio.CancelScope()

    async def run(self, token: str | None, accept_moved_state: bool, stop_on_eof: bool) -> None:
        """The whole life of the process. Raises `StartFailed`."""
        failure: StartFailed | None = None
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._watch_signals)
            tasks.start_soon(self._tick)
            tasks.start_soon(feed_watchdog)
            if stop_on_eof:
                tasks.start_soon(self._watch_stdin)
            failure = await self._live(token, accept_moved_state)
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _live(self, token: str | None, accept_moved_state: bool) -> StartFailed | None:
        try:
            with start_failures(self._config.listen), StateDirectory.open(self._config.state_dir) as state:
                await self._live_in(state, token, accept_moved_state)
        except StartFailed as failure:
            return failure
        except SocketPlaceError as error:
            return StartFailed(f"control socket {error.path}: {error.problem}", error.advice)
        except OSError as error:
            return _unexpected(error, self._config.state_dir)
        except NodeFailed as error:
            return StartFailed(error.text, error.advice)
        return None

    async def _live_in(self, state: StateDirectory, token: str | None, accept_moved_state: bool) -> None:
        identity = state.identity(accept_moved=accept_moved_state)
        with self._entering:
            admission = await enter(state, identity, self._config, token, self._log.emit)
        if self._stop.is_set():
            return
        started_s = time.monotonic()
        self._node = Node(self._config, state, admission, self._log, self._recent, self._stop)
        try:
            await self._node.live()
        except BaseExceptionGroup as group:
            raise _only(group) from group
        self._log.emit(NodeStopped(node=identity.node, after_s=round(time.monotonic() - started_s, 3)))

    # --- what can stop it ---

    async def _watch_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._log.output.reopen()
                    self._read_config()
                elif self._stop.is_set():
                    # Said twice: no goodbye, no clean-up, now. The kernel frees lock and sockets.
                    os._exit(SECOND_SIGNAL_EXIT)
                else:
                    self._stop_because(signal.Signals(number).name)

    def _read_config(self) -> None:
        """Take a changed configuration in. An invalid one changes nothing."""
        if self._reload is None:
            return
        try:
            fresh = self._reload()
        except ConfigError as error:
            found = "" if error.found is None else str(error.found)[:80]
            expected = f"{error.expected}; the old configuration stays in force"
            self._log.emit(ConfigInvalid(error.key, found, expected, error.source))
            return
        changes = compare(self._config, fresh)
        # What needs a restart stays as it is: the next comparison is with what this process really goes by.
        kept = {field.name for field in fields(NodeConfig) if effect_of(field.name) is Effect.RESTART}
        self._config = replace(fresh, **{name: getattr(self._config, name) for name in kept})
        self._log.set_level(self._config.log_level)
        if self._node is not None:
            self._node.configure(self._config)
        self._log.emit(ConfigReloaded(changes.at_once, changes.later, changes.restart))

    async def _watch_stdin(self) -> None:
        """Until stdin ends: whoever started this node as its child is gone."""
        while True:
            await anyio.wait_readable(sys.stdin.fileno())
            if not os.read(sys.stdin.fileno(), 4096):
                self._stop_because("stdin closed")
                return

    def _stop_because(self, cause: str) -> None:
        self._stop.because(cause)
        self._entering.cancel()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(LOG_TICK_S)
            self._log.tick()


def _only(error: BaseException) -> BaseException:
    """What a task group wrapped, where it is one error: that one is known to whoever handles it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _unexpected(error: OSError, state_dir: Path) -> StartFailed:
    """What no room of the daemon knows better: at least the file, where the system named one."""
    what = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        return StartFailed(f"{error.filename or state_dir}: {what}", "make room on that file system")
    if error.filename is not None:
        return StartFailed(f"{error.filename}: {what}", "look at that file or address, and at this user's rights")
    return StartFailed(what, "run `meshnode doctor`, which looks at the state directory and the ports")


def _listen_failure(error: ListenFailed, listen: SocketAddress) -> StartFailed:
    message = f"listen {error.address}: {os.strerror(error.problem)}"
    if error.problem == errno.EADDRINUSE:
        message = f"listen {error.address}: UDP port {listen.port} is in use{port_holder(listen.port, 'udp')}"
    return StartFailed(message, error.advice)
