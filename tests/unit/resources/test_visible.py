from __future__ import annotations

from dataclasses import dataclass

import pytest

from meshnode.resources import FindingCode
from meshnode.resources.visible import visible_devices


@dataclass(frozen=True)
class Card:
    uuid: str
    index: int
    name: str = "NVIDIA L4"


ALPHA, BETA, GAMMA = Card("GPU-aa11", 0), Card("GPU-aa22", 1), Card("GPU-bb33", 2)
CARDS = (ALPHA, BETA, GAMMA)


def visible(value: str | None, cards: tuple[Card, ...] = CARDS, **environment: str) -> tuple[Card, ...]:
    variables = environment if value is None else {**environment, "CUDA_VISIBLE_DEVICES": value}
    return visible_devices(cards, variables)[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, CARDS),
        ("", ()),
        ("-1", ()),
        ("0", (ALPHA,)),
        ("2,0", (GAMMA, ALPHA)),
        (" 1 , 2 ", (BETA, GAMMA)),
        ("GPU-bb33", (GAMMA,)),
        ("GPU-b", (GAMMA,)),
        ("GPU-bb33,0", (GAMMA, ALPHA)),
        ("1,-1,0", (BETA,)),
        ("0,9,1", (ALPHA,)),
        ("0,x,1", (ALPHA,)),
        ("GPU-zz,0", ()),
        ("GPU-aa,0", ()),
        ("0,0", ()),
        ("0,GPU-aa11", ()),
        ("²", ()),
    ],
)
def test_variable_selects(value: str | None, expected: tuple[Card, ...]) -> None:
    assert visible(value) == expected


def test_invalid_entry_is_named() -> None:
    _, findings = visible_devices(CARDS, {"CUDA_VISIBLE_DEVICES": "0,9"})
    assert [finding.code for finding in findings] == [FindingCode.VISIBLE_DEVICES_INVALID]
    assert "'9' is beyond the 3 GPU(s)" in findings[0].found


def test_ambiguous_prefix_is_named() -> None:
    _, findings = visible_devices(CARDS, {"CUDA_VISIBLE_DEVICES": "GPU-aa"})
    assert "matches 2 GPUs" in findings[0].found


def test_hiding_all_is_told_as_intended_and_not_as_invalid() -> None:
    _, findings = visible_devices(CARDS, {"CUDA_VISIBLE_DEVICES": "-1"})
    assert [finding.code for finding in findings] == [FindingCode.GPUS_HIDDEN]


def test_index_among_unlike_cards_is_called_ambiguous() -> None:
    cards = (ALPHA, Card("GPU-cc", 1, "NVIDIA GeForce RTX 3090"))
    _, findings = visible_devices(cards, {"CUDA_VISIBLE_DEVICES": "1"})
    assert [finding.code for finding in findings] == [FindingCode.DEVICE_ORDER_AMBIGUOUS]


def test_index_among_unlike_cards_in_bus_order_is_sure() -> None:
    cards = (ALPHA, Card("GPU-cc", 1, "NVIDIA GeForce RTX 3090"))
    environment = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_devices(cards, environment) == ((cards[1],), ())


def test_mig_instance_is_selected_by_its_own_uuid() -> None:
    instances = (Card("MIG-1", 0), Card("MIG-2", 0), Card("GPU-z", 1))
    assert visible("MIG-2,GPU-z", instances) == (instances[1], instances[2])


def test_index_of_a_partitioned_gpu_is_its_first_instance() -> None:
    instances = (Card("MIG-1", 0), Card("MIG-2", 0), Card("GPU-z", 1))
    assert visible("0", instances) == (instances[0],)


def test_variable_on_a_machine_without_gpus_says_nothing() -> None:
    assert visible_devices((), {"CUDA_VISIBLE_DEVICES": "0"}) == ((), ())
