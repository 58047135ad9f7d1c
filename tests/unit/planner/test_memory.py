"""Compute buffers: what is charged, beside what a real llama.cpp reserved.

Figures of llama-cpp-python 0.3.36 (`sched_reserve` in its log, two decimals of a MiB) for Gemma 3 270M Q4_K_M over RPC
servers on CPUs, and of models that were made to vary one width at a time.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.engine import ENGINES
from planner.memory import ComputeNeed, compute_need, memory_need
from planner.model import LayerSpec, ModelSpec
from planner.workload import CacheType, Workload

MIB = 2**20
FULL, SLIDING = (LayerSpec(1, weight_bytes=MIB, k_width=256, v_width=256, window=window) for window in (0, 512))
GEMMA = ModelSpec(
    "gemma3-270m", (*(SLIDING,) * 5, FULL, *(SLIDING,) * 5, FULL, *(SLIDING,) * 5, FULL),
    embedding_bytes=178_257_920, output_bytes=2_560, tied_embedding=True, vocabulary=262_144, hidden_size=640,
    head_count=4, feed_forward_width=2_048, attention_width=1_024,
)  # fmt: skip
LLAMA = ModelSpec(
    "made", (LayerSpec(6, weight_bytes=MIB, k_width=128, v_width=128),), vocabulary=60_000, hidden_size=512,
    head_count=8, feed_forward_width=1_536, attention_width=512,
)  # fmt: skip
FLASH = Workload(context=2048)
PLAIN = Workload(context=2048, flash_attention=False, swa_full=True)
QUANTISED = Workload(context=8192, k_type=CacheType.Q8_0, v_type=CacheType.Q8_0, swa_full=True)


def mib(need: int) -> float:
    return need / MIB


def first_of(need: ComputeNeed) -> float:
    """What the first stage takes: nothing arrives there from another device."""
    return mib(need.body - need.arriving)


@pytest.mark.parametrize(
    ("workload", "first", "later", "last", "host"),
    [
        (FLASH, 33.57, 38.57, 535.33, 18.34),
        (replace(FLASH, context=8192), 57.57, 62.57, 559.33, 42.34),
        (QUANTISED, 87.70, None, 584.45, 72.46),
        (PLAIN, 67.54, None, 558.30, 46.30),
        (replace(PLAIN, context=8192), 211.54, None, 654.30, 142.30),
        (replace(PLAIN, context=8192, micro_batch=128), 52.88, None, 163.57, 35.58),
        (replace(PLAIN, context=4096), 115.54, None, 590.30, 78.30),
        (replace(PLAIN, context=8192, swa_full=False), 155.54, None, 598.30, 86.30),
    ],
)
def test_gemma_over_several_devices(
    workload: Workload, first: float, later: float | None, last: float, host: float
) -> None:
    need = compute_need(GEMMA, workload)
    assert first_of(need) == pytest.approx(first, rel=0.01)
    assert later is None or mib(need.body) == pytest.approx(later, rel=0.01)
    assert mib(need.last) == pytest.approx(last, rel=0.01)
    assert mib(need.host) == pytest.approx(host, rel=0.01)


@pytest.mark.parametrize("context", [2048, 8192, 32_768])
def test_gemma_on_one_cpu_where_the_logits_take_the_place_of_the_masks(context: int) -> None:
    assert mib(compute_need(GEMMA, replace(FLASH, context=context)).whole) == pytest.approx(514.50, rel=0.01)


@pytest.mark.parametrize(
    ("changed", "context", "first", "later", "last", "host", "whole"),
    [
        ({}, 2048, 12_308, 14_356, 68_726, 6_682, 61_025),
        ({"vocabulary": 1000}, 2048, 12_308, 14_356, None, 6_682, 7_685),
        ({"vocabulary": 1000}, 8192, 24_596, 26_644, None, 18_970, 10_757),
        ({"vocabulary": 1000, "hidden_size": 768}, 2048, 13_844, 16_916, None, 7_962, 8_453),
        ({"vocabulary": 1000, "feed_forward_width": 2560}, 2048, 15_380, 17_428, None, 6_682, 10_757),
        (
            {"vocabulary": 1000, "hidden_size": 1024, "feed_forward_width": 4096, "attention_width": 1024}, 2048,
            23_572, 27_668, None, 9_242, None,
        ),
    ],
)  # fmt: skip
def test_widths_count_as_they_did_in_made_models(
    changed: dict[str, int], context: int, first: int, later: int, last: int | None, host: int, whole: int | None
) -> None:
    """In elements of 4 bytes per token."""
    need = compute_need(replace(LLAMA, **changed), replace(FLASH, context=context))  # type: ignore[arg-type]

    def near(found: int | None) -> object:
        return pytest.approx(found, rel=0.01)

    elements = 4 * FLASH.micro_batch
    assert (need.body - need.arriving) / elements == near(first)
    assert need.body / elements == near(later)
    assert need.host / elements == near(host)
    assert last is None or need.last / elements == near(last)
    assert whole is None or need.whole / elements == near(whole)


def test_one_device_is_charged_for_one_copy_of_what_several_keep_four_of() -> None:
    need = memory_need(GEMMA, replace(FLASH, context=32_768), ENGINES["llama_cpp_rpc"])
    assert need.whole_compute_bytes < need.last_compute_bytes
