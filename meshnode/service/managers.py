"""Installing a node as a service of this user, with systemd or launchd.

What lives here: `ServiceManager`, its two kinds, and `manager_here`. What does not: the files' texts
(`meshnode.service.files`) and the verb (`meshnode.cli.service`).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshnode.service.files import MARK, agent_label, agent_place, agent_text, unit_place, unit_text

ANSWER_TIMEOUT_S: Final = 200.0
"""Starting waits for the node's READY=1, at most as long as the unit lets it."""


class ServiceFailed(Exception):
    """Something about the service can't be done: one line why, one what to do."""

    def __init__(self, message: str, advice: str) -> None:
        self.message = message
        self.advice = advice
        super().__init__(message)


class ManagerUnreachable(ServiceFailed):
    """The user's service manager does not run, so that it runs no service either."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """`state` is the manager's word (`active`, `failed`, ...), or `not installed`; `at_login` whether it starts by
    itself. `notes` are hints for people."""

    name: str
    file: Path
    installed: bool
    state: str
    at_login: bool
    pid: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """True where the manager says that the node is up."""
        return self.state == "active"


class ServiceManager(ABC):
    """One service of this name, kept by the manager of this system."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.file = file

    @abstractmethod
    def text(self, command: Sequence[str]) -> str:
        """What the file holds to run `command`."""

    @abstractmethod
    def start(self) -> None:
        """Have it started now and at each login; a running one is started anew. Raises `ServiceFailed`."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and start it at no login. Raises `ServiceFailed`."""

    @abstractmethod
    def state(self) -> ServiceState:
        """As it is now. Raises `ServiceFailed`."""

    def install(self, command: Sequence[str]) -> None:
        """Write the file. Raises `ServiceFailed` where somebody else's is in its place."""
        if self.file.exists() and not self._is_ours():
            raise ServiceFailed(f"{self.file} was not written by this verb", "move it away, or choose another --name")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(self.text(command), encoding="utf-8")
        except OSError as error:
            raise ServiceFailed(f"{self.file}: {error.strerror}", "make its directory writable") from error

    def uninstall(self) -> None:
        """Stop it and remove the file; the node's state stays. Raises `ServiceFailed`."""
        if not self.file.exists():
            raise ServiceFailed(f"no service {self.name} is installed", f"looked for {self.file}")
        if not self._is_ours():
            raise ServiceFailed(f"{self.file} was not written by this verb", "remove it by hand if it is yours")
        with contextlib.suppress(ManagerUnreachable):
            self.stop()
        self.file.unlink()

    def _is_ours(self) -> bool:
        try:
            return MARK in self.file.read_text(encoding="utf-8", errors="replace")[:4096]
        except OSError:
            return False


class SystemdUser(ServiceManager):
    """systemd's manager of this user."""

    def __init__(self, name: str) -> None:
        super().__init__(name, unit_place(name))

    def text(self, command: Sequence[str]) -> str:
        """See `ServiceManager`."""
        return unit_text(command)

    def start(self) -> None:
        """See `ServiceManager`."""
        self._systemctl("daemon-reload")
        self._systemctl("enable", self._unit)
        self._systemctl("restart", self._unit)

    def stop(self) -> None:
        """See `ServiceManager`."""
        self._systemctl("disable", "--now", self._unit)

    def uninstall(self) -> None:
        """See `ServiceManager`."""
        super().uninstall()
        # Where the manager does not run, `enable` has left this link; a running one has removed it.
        (self.file.parent / "default.target.wants" / self.file.name).unlink(missing_ok=True)
        with contextlib.suppress(ManagerUnreachable):
            self._systemctl("daemon-reload")

    def state(self) -> ServiceState:
        """See `ServiceManager`."""
        if not self.file.exists():
            return ServiceState(self.name, self.file, installed=False, state="not installed", at_login=False)
        try:
            shown = self._systemctl("show", self._unit, "--property", "ActiveState,UnitFileState,MainPID,Result")
        except ManagerUnreachable as error:
            notes = (f"{error.message}; {error.advice}",)
            return ServiceState(self.name, self.file, True, "manager does not run", at_login=False, notes=notes)
        facts = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        pid = int(facts.get("MainPID", "0") or 0)
        hints = [] if facts.get("Result", "success") == "success" else [f"its last run ended with {facts['Result']}"]
        if not self._lingers():
            hints.append("it ends when you log out; `loginctl enable-linger` lets it go on")
        return ServiceState(
            self.name, self.file, installed=True, state=facts.get("ActiveState", "unknown"),
            at_login=facts.get("UnitFileState") == "enabled", pid=pid or None, notes=tuple(hints),
        )  # fmt: skip

    @property
    def _unit(self) -> str:
        return f"{self.name}.service"

    def _systemctl(self, *words: str) -> str:
        try:
            return _output(["systemctl", "--user", *words], f"see `journalctl --user -u {self.name}`")
        except ServiceFailed as failed:
            if "Failed to connect to bus" not in failed.message:
                raise
            advice = "log in as the user itself (not by su), or use configs/meshnode.service for the whole system"
            raise ManagerUnreachable("no service manager of systemd runs for this user", advice) from failed

    def _lingers(self) -> bool:
        if shutil.which("loginctl") is None:
            return True
        done = _run(["loginctl", "show-user", getpass.getuser(), "--property", "Linger"])
        return done is None or done.returncode != 0 or "Linger=no" not in done.stdout


class Launchd(ServiceManager):
    """launchd's domain of this user."""

    def __init__(self, name: str) -> None:
        super().__init__(name, agent_place(name))

    def text(self, command: Sequence[str]) -> str:
        """See `ServiceManager`."""
        return agent_text(self.name, command)

    def start(self) -> None:
        """See `ServiceManager`."""
        # One that is loaded already keeps its old file until it is unloaded; none loaded is no fault.
        _run(["launchctl", "bootout", self._target])
        _output(["launchctl", "bootstrap", self._domain, str(self.file)], "see ~/Library/Logs")

    def stop(self) -> None:
        """See `ServiceManager`."""
        _run(["launchctl", "bootout", self._target])

    def state(self) -> ServiceState:
        """See `ServiceManager`."""
        if not self.file.exists():
            return ServiceState(self.name, self.file, installed=False, state="not installed", at_login=False)
        done = _run(["launchctl", "print", self._target])
        shown = "" if done is None or done.returncode != 0 else done.stdout
        facts = dict(line.strip().split(" = ", 1) for line in shown.splitlines() if line.count(" = ") == 1)
        pid = facts.get("pid", "")
        state = "active" if facts.get("state") == "running" else facts.get("state", "not loaded")
        return ServiceState(
            self.name, self.file, installed=True, state=state, at_login=bool(shown),
            pid=int(pid) if pid.isdigit() else None,
        )  # fmt: skip

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    @property
    def _target(self) -> str:
        return f"{self._domain}/{agent_label(self.name)}"


def manager_here(name: str) -> ServiceManager:
    """The service manager of this system. Raises `ServiceFailed` where it has neither."""
    if sys.platform == "darwin":
        return Launchd(name)
    if shutil.which("systemctl") is not None:
        return SystemdUser(name)
    advice = "run `meshnode run` under whatever starts services here; it stops on SIGTERM and reloads on SIGHUP"
    raise ServiceFailed("this system has neither systemd nor launchd", advice)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """None where the program is not there or does not end."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _output(command: Sequence[str], advice: str) -> str:
    done = _run(command)
    if done is None:
        raise ServiceFailed(f"`{' '.join(command)}` did not end", advice)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise ServiceFailed(f"`{' '.join(command)}`: {said}", advice)
    return done.stdout
