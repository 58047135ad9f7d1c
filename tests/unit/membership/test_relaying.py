"""What comes through a carrier: read from a source that speaks now, and never a second time."""

from __future__ import annotations

from making_memberships import Lone

from meshnode.events import LinkRelayed, LinkRelayLost, RecordRejected
from meshnode.membership.effects import Deliver
from meshnode.membership.relaying import MAX_HELD
from meshnode.membership.trust import UNSIGNED
from proto.codec import decode_message, encode_message
from proto.ids import BootId
from proto.messages import Ack, Message, Ping, Relay, ViewHash

NEWS = ViewHash(value=b"12345678", nodes=1)


class Carried:
    """`us`, linked to `carrier` only, through which `source` speaks; what it said is kept, as a carrier may do."""

    def __init__(self) -> None:
        self.us = Lone()
        self.carrier = self.us.meets()
        self.source = self.us.meets(linked=False, via=self.carrier)
        self.kept: list[Relay] = []
        self._number = 0

    def says(self, message: Message) -> None:
        self._number += 1
        relay = Relay(self.source.node, self.us.node, self._number, encode_message(message), UNSIGNED)
        self.kept.append(self.source.trust.sign_relay(relay))
        self.us.receives(self.carrier, self.kept[-1])

    def answers(self) -> None:
        """The source answers every ping that was sent to it, as long as there are any."""
        pings = [message for message in self.sent() if isinstance(message, Ping)]
        assert pings, "it was asked"
        self.us.forget_effects()
        for ping in pings:
            self.says(Ack(ping.nonce, self.source.incarnation, 0, False, None))

    def sent(self) -> list[Message | None]:
        """What was sent to the source."""
        relays = self.us.sent(Relay, self.carrier)
        return [decode_message(relay.payload) for relay in relays if relay.target == self.source.node]

    def tells(self, message: Message) -> None:
        """This node sends the source a message of another room."""
        self.us.effects += self.us.machine.send(self.source.node, message, self.us.now_s)

    def heard(self) -> list[Message]:
        """What other rooms are given of the source."""
        return [one.message for one in self.us.effects if isinstance(one, Deliver) and one.peer == self.source.node]

    def restart(self) -> None:
        """Another process of this node; the carrier and the source go on."""
        self.us.restarts()
        self.us.link(self.carrier)
        self.us.hears(self.carrier, self.carrier.identity(), self.source.identity())
        self.us.forget_effects()

    def repeat(self) -> None:
        """The carrier passes everything on once more, twice."""
        for relay in (*self.kept, *self.kept):
            self.us.receives(self.carrier, relay)


def test_source_is_heard_once_it_has_answered() -> None:
    carried = Carried()
    carried.says(NEWS)
    assert carried.heard() == []
    carried.answers()
    carried.says(NEWS)
    assert carried.heard() == [NEWS]


def test_nothing_is_heard_a_second_time() -> None:
    carried = Carried()
    carried.says(NEWS)
    carried.answers()
    carried.says(NEWS)
    carried.us.forget_effects()
    carried.repeat()
    assert carried.heard() == []


def test_nothing_of_before_a_restart_is_heard_after_it() -> None:
    carried = Carried()
    carried.says(NEWS)
    carried.answers()
    carried.says(NEWS)
    assert carried.heard() == [NEWS]
    carried.restart()
    carried.repeat()
    assert carried.heard() == []
    carried.answers()
    carried.repeat()
    assert carried.heard() == []
    carried.says(NEWS)
    assert carried.heard() == [NEWS]


def test_many_messages_of_a_source_that_does_not_answer_have_it_asked_once_a_second() -> None:
    carried = Carried()
    for _ in range(100):
        carried.says(NEWS)
    first = [message for message in carried.sent() if isinstance(message, Ping)]
    assert len(first) <= 2, "one of the path, one that asks"
    carried.us.passes(1.1)
    carried.us.forget_effects()
    carried.says(NEWS)
    assert any(isinstance(message, Ping) for message in carried.sent())


def test_what_is_said_through_a_new_path_waits_for_its_first_answer() -> None:
    carried = Carried()
    carried.says(Ping(7, 1))
    for _ in range(100):
        carried.tells(NEWS)
    assert NEWS not in carried.sent()
    carried.answers()
    assert carried.sent().count(NEWS) == MAX_HELD
    carried.tells(NEWS)
    assert carried.sent().count(NEWS) == MAX_HELD + 1


def test_what_is_said_to_a_restarted_node_waits_for_its_first_answer_too() -> None:
    carried = Carried()
    carried.says(Ping(7, 1))
    carried.answers()
    carried.us.forget_effects()
    carried.source.boot_id, carried.source.incarnation = BootId(b"another process."), 2
    carried.us.hears(carried.carrier, carried.source.identity())
    carried.tells(NEWS)
    assert NEWS not in carried.sent()
    carried.answers()
    assert NEWS in carried.sent()


def test_path_through_a_neighbour_is_told_once_it_answers_and_when_it_is_lost() -> None:
    carried = Carried()
    us, through = carried.us, (carried.source.node, carried.carrier.node)
    carried.says(Ping(7, 1))
    assert us.events(LinkRelayed) == []
    carried.answers()
    assert [(event.peer, event.through) for event in us.events(LinkRelayed)] == [through]
    us.effects += us.machine.link_down(carried.carrier.node, "connection_lost", "no answer", us.now_s)
    assert [(event.peer, event.through) for event in us.events(LinkRelayLost)] == [through]


def test_link_that_takes_a_relayed_paths_place_is_no_loss() -> None:
    carried = Carried()
    carried.says(Ping(7, 1))
    carried.answers()
    carried.us.link(carried.source)
    assert carried.us.events(LinkRelayLost) == []


def test_ping_is_answered_before_its_source_is_known_to_speak_now() -> None:
    carried = Carried()
    carried.says(Ping(7, 1))
    assert [message.nonce for message in carried.sent() if isinstance(message, Ack)] == [7]


def test_forged_message_is_charged_to_whoever_carried_it() -> None:
    carried = Carried()
    liar = carried.carrier
    forged = Relay(carried.source.node, carried.us.node, 9, encode_message(Ping(7, 1)), UNSIGNED)
    carried.us.receives(liar, forged)
    assert carried.sent() == []
    assert [event.relayed_by for event in carried.us.events(RecordRejected)] == [liar.node]
