"""What a node says of itself: its start and stop, its configuration, what it stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from meshnode.events.event import Event, Level


@dataclass(frozen=True)
class NodeStarted(Event):
    """The daemon is up and answers."""

    name: ClassVar[str] = "node.started"
    level: ClassVar[Level] = Level.INFO
    node: str
    mesh: str
    role: str
    listen: str
    incarnation: int
    state_directory: str
    pid: int
    version: str


@dataclass(frozen=True)
class NodePortChanged(Event):
    """Port 0 is configured, and the port of the last start can't be had again: the node listens on another one."""

    name: ClassVar[str] = "node.port_changed"
    level: ClassVar[Level] = Level.WARNING
    old_port: int
    new_port: int
    problem: str
    advice: str


@dataclass(frozen=True)
class NodeDraining(Event):
    """The operator had this node take no new stages (`draining` true), or take them again."""

    name: ClassVar[str] = "node.draining"
    level: ClassVar[Level] = Level.INFO
    draining: bool


@dataclass(frozen=True)
class NodeStopping(Event):
    """A clean stop began; the mesh is told `left`."""

    name: ClassVar[str] = "node.stopping"
    level: ClassVar[Level] = Level.INFO
    node: str
    cause: str


@dataclass(frozen=True)
class NodeStopped(Event):
    """The daemon is down."""

    name: ClassVar[str] = "node.stopped"
    level: ClassVar[Level] = Level.INFO
    node: str
    after_s: float


@dataclass(frozen=True)
class NodeStalled(Event):
    """This process did not run for a while (blocked loop, suspend): it accuses nobody meanwhile."""

    name: ClassVar[str] = "node.stalled"
    level: ClassVar[Level] = Level.WARNING
    stalled_s: float
    cause: str


@dataclass(frozen=True)
class ConfigInvalid(Event):
    """A config value is wrong: which, what was found, what is right."""

    name: ClassVar[str] = "config.invalid"
    level: ClassVar[Level] = Level.ERROR
    key: str
    found: str
    expected: str
    source: str


@dataclass(frozen=True)
class ConfigReloaded(Event):
    """SIGHUP: the configuration was read anew. Each change as `key: old -> new`: `changed` holds from now on, `later`
    for splits and questions that begin from now on, `needs_restart` at the next start."""

    name: ClassVar[str] = "config.reloaded"
    level: ClassVar[Level] = Level.INFO
    changed: tuple[str, ...]
    later: tuple[str, ...]
    needs_restart: tuple[str, ...]


@dataclass(frozen=True)
class StateUnsaved(Event):
    """Something could not be stored in the state directory; the node goes on without it."""

    name: ClassVar[str] = "state.unsaved"
    level: ClassVar[Level] = Level.ERROR
    path: str
    problem: str
    advice: str


@dataclass(frozen=True)
class MeshCreated(Event):
    """This node founded a mesh. `root_kept`: the key that can remove any member lies in its state directory (`meshnode
    init --export-root` keeps it elsewhere)."""

    name: ClassVar[str] = "mesh.created"
    level: ClassVar[Level] = Level.INFO
    mesh: str
    root_kept: bool
