"""Which of two links stays, by plain calls."""

from __future__ import annotations

from making_members import Key

from meshnode.transport.link_table import Action, Ask, Candidate, Conflict, Install, LinkTable, Refuse
from proto.ids import BootId, NodeId
from proto.messages import RefusalCode

SMALL, LARGE = sorted((Key("one").node, Key("two").node))
BOOT, NEWER_BOOT, THIRD_BOOT = (BootId(letter * 16) for letter in (b"a", b"b", b"c"))


def a_table(own: NodeId = SMALL, max_links: int = 10) -> LinkTable:
    return LinkTable(own, max_links)


def a_link(number: int, *, peer: NodeId = LARGE, boot_id: BootId = BOOT, dialled_by_us: bool = True) -> Candidate:
    return Candidate(number, peer, boot_id, dialled_by_us)


def arrived(table: LinkTable, link: Candidate, *, own_dial_leads: bool = False) -> tuple[Action, ...]:
    return table.arrive(link, own_dial_leads=own_dial_leads)


def only(actions: tuple[Action, ...]) -> Action:
    assert len(actions) == 1, actions
    return actions[0]


def is_install(action: Action, link: int, replaces: int | None = None) -> bool:
    return isinstance(action, Install) and (action.link, action.replaces) == (link, replaces)


def is_refusal(action: Action, link: int, code: RefusalCode) -> bool:
    return isinstance(action, Refuse) and (action.link, action.code) == (link, code)


def test_first_link_is_current() -> None:
    table = a_table()
    assert is_install(only(arrived(table, a_link(1))), 1)
    assert table.current(LARGE) == 1


def test_link_dialled_by_the_smaller_id_takes_the_place_of_the_other() -> None:
    table = a_table(own=SMALL)
    arrived(table, a_link(1, dialled_by_us=False))
    assert is_install(only(arrived(table, a_link(2, dialled_by_us=True))), 2, replaces=1)


def test_own_dial_that_loses_is_refused_without_asking() -> None:
    table = a_table(own=LARGE)
    arrived(table, a_link(1, peer=SMALL, dialled_by_us=False))
    actions = arrived(table, a_link(2, peer=SMALL, dialled_by_us=True))
    assert is_refusal(only(actions), 2, RefusalCode.DUPLICATE_LINK)
    assert table.current(SMALL) == 1


def test_inbound_dial_that_loses_has_the_current_link_asked_first() -> None:
    table = a_table(own=SMALL)
    arrived(table, a_link(1))
    assert only(arrived(table, a_link(2, dialled_by_us=False))) == Ask(1, None)
    assert is_refusal(only(table.answered(LARGE)), 2, RefusalCode.DUPLICATE_LINK)


def test_inbound_dial_that_would_lose_wins_over_a_link_that_does_not_answer() -> None:
    table = a_table(own=SMALL)
    arrived(table, a_link(1))
    arrived(table, a_link(2, dialled_by_us=False))
    assert is_install(only(table.silent(LARGE)), 2, replaces=1)


def test_second_dial_by_one_side_replaces_its_first() -> None:
    for dialled_by_us in (True, False):
        table = a_table()
        arrived(table, a_link(1, dialled_by_us=dialled_by_us))
        assert is_install(only(arrived(table, a_link(2, dialled_by_us=dialled_by_us))), 2, replaces=1)


def test_inbound_link_waits_for_an_own_dial_that_would_win() -> None:
    table = a_table(own=SMALL)
    assert arrived(table, a_link(1, dialled_by_us=False), own_dial_leads=True) == ()
    assert table.is_waiting(LARGE)
    own, refused = arrived(table, a_link(2, dialled_by_us=True))
    assert is_install(own, 2)
    assert is_refusal(refused, 1, RefusalCode.DUPLICATE_LINK)


def test_inbound_link_that_waited_comes_in_when_the_own_dial_fails() -> None:
    table = a_table(own=SMALL)
    arrived(table, a_link(1, dialled_by_us=False), own_dial_leads=True)
    assert is_install(only(table.own_dial_ended(LARGE)), 1)


def test_larger_id_does_not_wait_for_its_own_dial() -> None:
    table = a_table(own=LARGE)
    inbound = a_link(1, peer=SMALL, dialled_by_us=False)
    assert is_install(only(arrived(table, inbound, own_dial_leads=True)), 1)


def test_other_boot_id_has_the_current_link_asked_and_is_refused_if_it_lives() -> None:
    table = a_table()
    arrived(table, a_link(1))
    assert only(arrived(table, a_link(2, boot_id=NEWER_BOOT, dialled_by_us=False))) == Ask(1, NEWER_BOOT)
    conflict, refused = table.answered(LARGE)
    assert conflict == Conflict(old=1, new=2)
    assert is_refusal(refused, 2, RefusalCode.IDENTITY_IN_USE)
    assert table.current(LARGE) == 1


def test_other_boot_id_takes_over_from_a_silent_link() -> None:
    table = a_table()
    arrived(table, a_link(1))
    arrived(table, a_link(2, boot_id=NEWER_BOOT, dialled_by_us=False))
    assert is_install(only(table.silent(LARGE)), 2, replaces=1)


def test_other_boot_id_takes_over_at_once_when_the_current_link_ends() -> None:
    table = a_table()
    arrived(table, a_link(1))
    arrived(table, a_link(2, boot_id=NEWER_BOOT, dialled_by_us=False))
    assert is_install(only(table.gone(1, LARGE)), 2)


def test_third_boot_id_is_told_to_come_back() -> None:
    table = a_table()
    arrived(table, a_link(1))
    arrived(table, a_link(2, boot_id=NEWER_BOOT, dialled_by_us=False))
    third = arrived(table, a_link(3, boot_id=THIRD_BOOT, dialled_by_us=False))
    assert is_refusal(only(third), 3, RefusalCode.BUSY)


def test_newer_process_that_dials_again_while_it_is_judged_is_judged_once() -> None:
    table = a_table()
    arrived(table, a_link(1))
    arrived(table, a_link(2, boot_id=NEWER_BOOT, dialled_by_us=False))
    again = arrived(table, a_link(3, boot_id=NEWER_BOOT, dialled_by_us=False))
    assert is_refusal(only(again), 2, RefusalCode.DUPLICATE_LINK)
    assert is_install(only(table.silent(LARGE)), 3, replaces=1)


def test_waiting_link_that_ends_leaves_no_trace() -> None:
    table = a_table()
    arrived(table, a_link(1))
    arrived(table, a_link(2, boot_id=NEWER_BOOT, dialled_by_us=False))
    assert table.gone(2, LARGE) == ()
    assert table.answered(LARGE) == ()
    assert table.silent(LARGE) == ()
    assert table.current(LARGE) == 1


def test_end_of_a_replaced_link_does_not_touch_the_current_one() -> None:
    table = a_table()
    arrived(table, a_link(1))
    arrived(table, a_link(2))
    assert table.gone(1, LARGE) == ()
    assert table.current(LARGE) == 2


def test_inbound_links_beyond_the_limit_are_refused_but_own_and_replacing_ones_are_not() -> None:
    table = a_table(own=SMALL, max_links=1)
    arrived(table, a_link(1, dialled_by_us=False))
    other = Key("three").node
    refused = arrived(table, a_link(2, peer=other, dialled_by_us=False))
    assert is_refusal(only(refused), 2, RefusalCode.LINK_LIMIT)
    assert is_install(only(arrived(table, a_link(3, dialled_by_us=False))), 3, replaces=1)
    assert is_install(only(arrived(table, a_link(4, peer=other))), 4)
