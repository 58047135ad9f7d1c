"""The files by which a service manager starts a node of this user: a systemd user unit, a launchd agent.

What lives here: their texts and places. What does not: talking to the managers (`meshnode.service.managers`), the
system-wide unit, which an administrator copies (`configs/meshnode.service`). Called by `meshnode service`.
"""

from __future__ import annotations

import os
import plistlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

MARK: Final = "Written by `meshnode service install`"
"""Stands in each file made here: only such a file is replaced or removed."""
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
WATCHDOG_S: Final = 30

_UNIT: Final = """\
# {mark}; `meshnode service uninstall` removes it.

[Unit]
Description=meshnode: pools machines to hold one language model
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
WatchdogSec={watchdog_s}
TimeoutStartSec=180
TimeoutStopSec=20
KillMode=mixed
UMask=0077
LimitNOFILE=4096
# A user's manager can't do more without rights of its own; configs/meshnode.service shuts off much more.
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""


def unit_place(name: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Where systemd looks for the user's unit of this name (systemd.unit(5), 'Unit File Load Path')."""
    base = environment.get("XDG_CONFIG_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".config"
    return home / "systemd" / "user" / f"{name}.service"


def unit_text(command: Sequence[str]) -> str:
    """The unit that runs `command`."""
    return _UNIT.format(mark=MARK, command=" ".join(map(_quoted, command)), watchdog_s=WATCHDOG_S)


def _quoted(word: str) -> str:
    """One word of ExecStart= (systemd.service(5), 'Command Lines'): `%` and `$` mean something unless doubled."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return word if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word) else f'"{word}"'


def agent_label(name: str) -> str:
    """What launchd calls the agent."""
    return f"org.meshnode.{name}"


def agent_place(name: str) -> Path:
    """Where launchd looks for the user's agents (launchd.plist(5))."""
    return Path.home() / "Library" / "LaunchAgents" / f"{agent_label(name)}.plist"


def agent_text(name: str, command: Sequence[str]) -> str:
    """The agent that runs `command`, starts it again where it fails, and keeps its log in the user's log directory."""
    log = str(Path.home() / "Library" / "Logs" / f"{name}.log")
    content = {
        "Label": agent_label(name),
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "ProcessType": "Background",
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 4096},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    head, _, rest = plistlib.dumps(content, sort_keys=False).decode().partition("<plist")
    return f"{head}<!-- {MARK}; `meshnode service uninstall` removes it. -->\n<plist{rest}"


def command_of(program: Sequence[str], state_dir: Path, config_file: Path | None, more: Sequence[str]) -> list[str]:
    """How the manager starts the node: its environment is another one, so that every place is said."""
    config = [] if config_file is None else ["--config", str(config_file.absolute())]
    return [*program, "run", "--state-dir", str(state_dir.absolute()), *config, "--log-format", "json", *more]
