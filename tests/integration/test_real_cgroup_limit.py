"""A real container limit: a process in a limited cgroup offers what the limit leaves, not the machine's RAM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_BYTES = 2 * 2**30
SCRIPT = """
import json, os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
from meshnode.resources import OfferSettings, SystemProbe, survey_machine
found = survey_machine(OfferSettings(headroom=0.0, offer_ram=True), SystemProbe())
cpu = [device for device in found.devices if device.kind == "cpu"]
print(json.dumps({
    "total": [device.total_bytes for device in cpu],
    "given": found.host_usable_bytes + sum(device.usable_bytes for device in cpu),
    "findings": [finding.code for finding in found.findings],
}))
"""


@pytest.fixture
def limited_group() -> Iterator[Path]:
    """A cgroup with a limit of 2 GiB, in the v1 or v2 hierarchy of this machine; skips where none can be made."""
    name = f"meshnode-test-{os.getpid()}"
    for top, limit_file in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = top / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit_file).write_text(str(LIMIT_BYTES))
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("this machine lets no cgroup with a memory limit be made (needs root and the memory controller)")


def test_process_in_a_limited_group_offers_no_more_than_its_limit(limited_group: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(limited_group)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    found = json.loads(done.stdout)
    assert found["total"] == [LIMIT_BYTES]
    assert LIMIT_BYTES // 2 < found["given"] < LIMIT_BYTES
    assert "cgroup_limit" in found["findings"]
