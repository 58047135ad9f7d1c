"""What engine processes of ours say to the node: JSON lines on stdout, and nothing else there.

What lives here: `Speaker`, the process's side. What does not: the node's side (`meshnode.engine.process`). Libraries
print what they like: their stdout becomes stderr, which is the log.
"""

from __future__ import annotations

import json
import os
import threading


class Speaker:
    """Makes stdout ours. One per process, made before any library is loaded."""

    def __init__(self) -> None:
        self._stdout = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, **word: object) -> None:
        """One word to the node. A node that is gone hears nothing, and this process ends with it anyway."""
        line = json.dumps(word).encode() + b"\n"
        with self._lock:
            os.write(self._stdout, line)
