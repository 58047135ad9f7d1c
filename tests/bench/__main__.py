"""`make bench`: the figures the README and the issues speak of, measured on this machine and printed, never judged.

Usage: `make bench`, or `make bench NAMES="codec mesh"` for some of them. What takes an hour
runs only when it is named.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from bench import (
    bench_churn,
    bench_codec,
    bench_flood,
    bench_mesh,
    bench_page,
    bench_planner,
    bench_rtt,
    bench_tunnel,
    bench_weights,
)

BENCHES: dict[str, Callable[[], None]] = {
    "codec": bench_codec.main,
    "mesh": bench_mesh.main,
    "detection": bench_mesh.detection,
    "rtt": bench_rtt.main,
    "flood": bench_flood.main,
    "page": bench_page.main,
    "planner": bench_planner.main,
    "churn": bench_churn.main,
    "tunnel": bench_tunnel.main,
    "weights": bench_weights.main,
}
LONG = ("churn",)


def main(names: list[str]) -> int:
    """Run the named benches in order. Returns 2 for an unknown name."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"bench: found {', '.join(unknown)}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.2f} at the start")
    for name in names or [name for name in BENCHES if name not in LONG]:
        print(f"\n== {name}")
        started = time.perf_counter()
        BENCHES[name]()
        print(f"   ({time.perf_counter() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
