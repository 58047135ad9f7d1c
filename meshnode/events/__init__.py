"""The event catalogue: everything the daemon reports, each with a stable dotted name and typed fields.

What lives here: the event types, a module a theme, and `CATALOGUE`. What does not: rendering and folding
(`meshnode.logs`). Every room builds events, which it imports from here whatever their theme; sans-IO machines hand them
out as `Emit` effects. The reference page `docs/events.md` is made from this package, and a test holds catalogue, code
and page together.

Node and mesh ids stand in full here; the pretty rendering shortens them. No field ever holds a token or a key.
"""

# ruff: noqa: F403  # all events of a theme are public here: a new one is written down once

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from meshnode.events import admission, control_and_log, engine, links, measurements, node, peers, splits, tunnels
from meshnode.events.admission import *
from meshnode.events.control_and_log import *
from meshnode.events.engine import *
from meshnode.events.event import Event as Event
from meshnode.events.event import Level as Level
from meshnode.events.links import *
from meshnode.events.measurements import *
from meshnode.events.node import *
from meshnode.events.peers import *
from meshnode.events.splits import *
from meshnode.events.tunnels import *

_THEMES = (node, admission, links, peers, measurements, splits, engine, tunnels, control_and_log)
"""In the order of the reference page."""


def _events_of(theme: ModuleType) -> Iterator[type[Event]]:
    """In the order they are written down."""
    return (
        kind for kind in vars(theme).values() if isinstance(kind, type) and issubclass(kind, Event) and kind != Event
    )


CATALOGUE: dict[str, type[Event]] = {event.name: event for theme in _THEMES for event in _events_of(theme)}
"""Every event type by its dotted name."""
