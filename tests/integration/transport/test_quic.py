"""What this transport relies on inside aioquic, held against the installed version: two connections, no sockets."""

from __future__ import annotations

import pytest
from aioquic import tls
from aioquic.quic import events
from making_links import an_identity

from meshnode.transport.quic import (
    CONTROL_STREAM,
    MAX_UNASKED_PACKETS,
    MeshQuicConnection,
    accepting_configuration,
    dialling_configuration,
)
from meshnode.transport.settings import TransportSettings

SETTINGS = TransportSettings(unauthenticated_bytes=16_384)
IDENTITY = an_identity()
DIALLER_AT = ("192.0.2.1", 1)
ACCEPTOR_AT = ("192.0.2.2", 2)


class Pair:
    """A dialling and an accepting connection with an ideal path between them."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.dialler = MeshQuicConnection(dialling_configuration(SETTINGS))
        self.acceptor = MeshQuicConnection(
            accepting_configuration(SETTINGS, IDENTITY),
            original_destination_cid=self.dialler.original_destination_connection_id,
        )
        self.seen: dict[MeshQuicConnection, list[events.QuicEvent]] = {self.dialler: [], self.acceptor: []}
        self.quiet_packets = 0
        self.packets = 0
        self.dialler.connect(ACCEPTOR_AT, self.now_s)
        self.run()

    def run(self, passes: int = 40) -> None:
        """Exchange packets until nothing moves, a millisecond a pass."""
        for _ in range(passes):
            for sender, receiver, source in (
                (self.dialler, self.acceptor, DIALLER_AT),
                (self.acceptor, self.dialler, ACCEPTOR_AT),
            ):
                timer_s = sender.get_timer()
                if timer_s is not None and timer_s <= self.now_s:
                    sender.handle_timer(self.now_s)
                sender.acknowledge_now(self.now_s)
                was_quiet = sender._spaces != {} and sender.is_quiet()
                packets = sender.datagrams_to_send(self.now_s)
                self.quiet_packets += len(packets) if was_quiet else 0
                self.packets += len(packets)
                for data, _ in packets:
                    receiver.receive_datagram(data, source, self.now_s)
                for one in (sender, receiver):
                    while (event := one.next_event()) is not None:
                        self.seen[one].append(event)
            self.now_s += 0.001

    def unacknowledged(self, side: MeshQuicConnection) -> list[int]:
        """Numbers of the sent packets that are still kept."""
        return list(side._spaces[tls.Epoch.ONE_RTT].sent_packets)

    def stream_bytes(self, side: MeshQuicConnection) -> int:
        return sum(len(event.data) for event in self.seen[side] if isinstance(event, events.StreamDataReceived))


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_dialler_learns_the_node_whose_key_tls_proved(pair: Pair) -> None:
    assert pair.dialler.peer_node == IDENTITY.node
    assert pair.acceptor.peer_node is None, "the dialler proves itself on the control stream"


def test_both_sides_take_datagrams(pair: Pair) -> None:
    assert pair.dialler.takes_datagrams
    assert pair.acceptor.takes_datagrams


def test_peer_can_send_no_more_than_the_window_while_nothing_is_consumed(pair: Pair) -> None:
    pair.dialler.send_stream_data(CONTROL_STREAM, b"x" * 100_000)
    pair.run(200)
    assert pair.stream_bytes(pair.acceptor) == SETTINGS.unauthenticated_bytes
    assert pair.dialler.unacknowledged_bytes(CONTROL_STREAM) == 100_000 - SETTINGS.unauthenticated_bytes


def test_credit_slides_with_what_was_consumed_and_never_grows(pair: Pair) -> None:
    pair.dialler.send_stream_data(CONTROL_STREAM, b"x" * 3_000_000)
    taken_bytes = 0
    for _ in range(3000):
        pair.run(2)
        fresh_bytes = pair.stream_bytes(pair.acceptor) - taken_bytes
        assert fresh_bytes <= SETTINGS.unauthenticated_bytes
        pair.acceptor.consume(CONTROL_STREAM, fresh_bytes)
        taken_bytes += fresh_bytes
        if taken_bytes == 3_000_000:
            break
    assert taken_bytes == 3_000_000
    pair.dialler.send_stream_data(CONTROL_STREAM, b"x" * 100_000)
    pair.run(300)
    assert pair.stream_bytes(pair.acceptor) - taken_bytes <= SETTINGS.unauthenticated_bytes


def test_widened_window_lets_more_be_on_the_way(pair: Pair) -> None:
    pair.acceptor.widen_window(200_000)
    pair.dialler.send_stream_data(CONTROL_STREAM, b"x" * 300_000)
    pair.run(400)
    assert pair.stream_bytes(pair.acceptor) == 200_000


def test_lost_credit_is_granted_again(pair: Pair) -> None:
    pair.dialler.send_stream_data(CONTROL_STREAM, b"x" * 30_000)
    pair.run(100)
    pair.acceptor.consume(CONTROL_STREAM, SETTINGS.unauthenticated_bytes)
    lost = pair.acceptor.datagrams_to_send(pair.now_s)
    assert lost, "the credit's packet, which never arrives"
    pair.now_s += 1.0
    pair.run(100)
    assert pair.stream_bytes(pair.acceptor) == 30_000


def test_close_is_known_at_once_and_not_after_three_probe_timeouts(pair: Pair) -> None:
    before = pair.acceptor.ending
    assert before is None
    pair.dialler.close(0x6D, reason_phrase="leaving: bye")
    pair.run(1)
    ending = pair.acceptor.ending
    assert ending == (0x6D, "leaving: bye", True)
    assert pair.dialler.ending == (0x6D, "leaving: bye", False)


def test_idle_timeout_is_an_ending_of_this_side(pair: Pair) -> None:
    pair.acceptor.handle_timer(pair.now_s + SETTINGS.idle_timeout_s + 1.0)
    ending = pair.acceptor.ending
    assert ending is not None
    assert (ending.phrase, ending.by_peer) == ("Idle timeout", False)


def test_time_of_the_last_authenticated_packet_is_known(pair: Pair) -> None:
    pair.now_s = 110.0
    pair.dialler.send_ping(1)
    pair.run(1)
    assert pair.acceptor.heard_at_s() == 110.0


def test_packet_that_does_not_authenticate_is_no_sign_of_life(pair: Pair) -> None:
    heard_at_s = pair.acceptor.heard_at_s()
    pair.dialler.send_ping(1)
    data = bytearray(pair.dialler.datagrams_to_send(pair.now_s)[0][0])
    data[-1] ^= 1
    pair.acceptor.receive_datagram(bytes(data), DIALLER_AT, 300.0)
    assert pair.acceptor.heard_at_s() == heard_at_s


def test_stream_can_be_ended_once(pair: Pair) -> None:
    assert not pair.dialler.end_stream(CONTROL_STREAM, b"too early")
    pair.dialler.send_stream_data(CONTROL_STREAM, b"first")
    assert pair.dialler.has_stream(CONTROL_STREAM)
    assert pair.dialler.end_stream(CONTROL_STREAM, b"last")
    assert not pair.dialler.end_stream(CONTROL_STREAM, b"again")
    pair.run()
    assert pair.stream_bytes(pair.acceptor) == len(b"firstlast")


def test_answer_carries_the_acknowledgement_along(pair: Pair) -> None:
    pair.dialler.send_datagram_frame(b"ping")
    for data, _ in pair.dialler.datagrams_to_send(pair.now_s):
        pair.acceptor.receive_datagram(data, DIALLER_AT, pair.now_s)
    pair.acceptor.send_datagram_frame(b"pong")
    pair.acceptor.acknowledge_now(pair.now_s)
    answers = pair.acceptor.datagrams_to_send(pair.now_s)
    assert len(answers) == 1
    pair.dialler.receive_datagram(answers[0][0], ACCEPTOR_AT, pair.now_s)
    assert pair.dialler._loss.bytes_in_flight == 0, "the ping is acknowledged"
    assert pair.acceptor.get_timer() is not None


def test_ping_and_its_answer_are_two_packets_and_arm_no_timer(pair: Pair) -> None:
    pair.run()
    before = pair.packets
    pair.dialler.send_datagram_frame(b"ping")
    pair.run(1)
    pair.acceptor.send_datagram_frame(b"pong")
    pair.run()
    assert pair.packets - before == 2
    idle_s = SETTINGS.idle_timeout_s - 1.0
    for one in (pair.dialler, pair.acceptor):
        timer_s = one.get_timer()
        assert timer_s is not None
        assert timer_s - pair.now_s > idle_s, "nothing but the idle time-out is armed"


def test_acknowledgement_of_datagrams_travels_with_that_of_the_next_stream_data(pair: Pair) -> None:
    pair.dialler.send_stream_data(CONTROL_STREAM, b"begin")
    pair.run()
    for _ in range(10):
        pair.dialler.send_datagram_frame(b"ping")
        pair.run(1)
    assert len(pair.unacknowledged(pair.dialler)) >= 10
    pair.dialler.send_stream_data(CONTROL_STREAM, b"frame")
    pair.run()
    assert pair.unacknowledged(pair.dialler) == []


def test_datagrams_alone_keep_a_bounded_number_of_packets_in_mind(pair: Pair) -> None:
    for _ in range(1000):
        pair.dialler.send_datagram_frame(b"ping")
        pair.run(1)
    pair.run(400)
    assert len(pair.unacknowledged(pair.dialler)) <= MAX_UNASKED_PACKETS


def test_lost_datagrams_do_not_close_the_congestion_window(pair: Pair) -> None:
    for _ in range(200):
        pair.dialler.send_datagram_frame(b"x" * 1000)
        assert pair.dialler.datagrams_to_send(pair.now_s), "congestion control holds a probe back"
        pair.now_s += 0.01


def test_stream_data_beside_a_datagram_is_acknowledged_at_once(pair: Pair) -> None:
    pair.dialler.send_stream_data(CONTROL_STREAM, b"frame")
    pair.dialler.send_datagram_frame(b"ping")
    pair.run(2)
    assert pair.dialler.unacknowledged_bytes(CONTROL_STREAM) == 0


def test_connection_called_quiet_never_has_a_packet_to_send(pair: Pair) -> None:
    pair.dialler.send_stream_data(CONTROL_STREAM, b"x" * 50_000)
    pair.acceptor.widen_window(100_000)
    pair.run(100)
    pair.acceptor.consume(CONTROL_STREAM, 50_000)
    pair.acceptor.send_stream_data(CONTROL_STREAM, b"y" * 5_000)
    pair.dialler.send_datagram_frame(b"ping")
    pair.acceptor.send_ping(1)
    pair.run(100)
    pair.dialler.change_connection_id()
    pair.run(100)
    pair.dialler.end_stream(CONTROL_STREAM, b"")
    pair.run(100)
    assert pair.quiet_packets == 0
    assert pair.dialler.is_quiet(), "it does come to rest"
    assert pair.acceptor.is_quiet()


def test_peer_opens_one_stream_and_we_open_none(pair: Pair) -> None:
    assert pair.dialler._remote_max_streams_bidi == 1
    assert pair.acceptor._remote_max_streams_bidi == 0
    assert pair.dialler._remote_max_streams_uni == pair.acceptor._remote_max_streams_uni == 0
