"""How ids and sizes are shown to people, where a message is made.

Lives here: `short_id`, `ceil_gb`. Not here: reading sizes and plain sizes (`planner.sizes`).
"""

from __future__ import annotations

from planner.sizes import format_gb

_NODE_ID_LENGTH = 52


def short_id(node: str) -> str:
    """Node ids as people see them: 10 characters; names of a nodes file whole."""
    return node[:10] if len(node) == _NODE_ID_LENGTH else node


def ceil_gb(count_bytes: int) -> str:
    """Rounded up to a tenth of a GB, so that what is shown is never too little."""
    return format_gb(-(-count_bytes // 10**8) * 10**8)
