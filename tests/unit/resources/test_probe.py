from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from meshnode.resources import SystemProbe
from meshnode.resources.nvidia import read_gpus
from meshnode.resources.probe import anonymous_bytes


def test_anonymous_memory_leaves_file_pages_out() -> None:
    status = "Name:\tx\nVmRSS:\t 900 kB\nRssAnon:\t 100 kB\nRssFile:\t 700 kB\nRssShmem:\t 20 kB\n"
    assert anonymous_bytes(status) == 120 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_this_process_holds_private_memory() -> None:
    assert SystemProbe().private_bytes(os.getpid()) > 10**6


def test_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    assert SystemProbe(root=tmp_path).private_bytes(2**22 + 1) == 0


def test_file_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert SystemProbe(root=tmp_path).read_text("/nothing") is None
    assert SystemProbe(root=tmp_path).read_text("/") is None


def test_memory_of_this_machine_is_consistent() -> None:
    memory = SystemProbe().memory()
    assert 0 < memory.available_bytes <= memory.total_bytes


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has sysctl")
def test_other_systems_have_no_macos_settings() -> None:
    assert SystemProbe().sysctl("hw.memsize") is None


def test_real_driver_interface_answers_or_is_named() -> None:
    """With or without a GPU: the real pynvml is called and nothing escapes."""
    reading = read_gpus(SystemProbe())
    assert reading.gpus or reading.findings or sys.platform == "darwin"
