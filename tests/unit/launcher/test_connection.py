"""Messages and beats between the head and an agent, over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from megatron.launcher import connection
from megatron.launcher.connection import LONGEST_GREETING, Beats, Connection, connect


@pytest.fixture
def pair() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = socket.socketpair()
    ends = Connection(ours), Connection(theirs)
    yield ends
    for end in ends:
        end.close()


def read(link: Connection, count: int) -> list[dict]:
    messages: list[dict] = []
    while len(messages) < count and not link.closed:
        messages += link.read()
    return messages


def test_messages_of_any_length_arrive_whole_and_in_order(pair):
    sender, receiver = pair
    sender.trusted = receiver.trusted = True
    long = "x\n" * 50_000
    sender.send("first", value=1)
    sender.send("second", text=long)
    assert read(receiver, 2) == [{"kind": "first", "value": 1}, {"kind": "second", "text": long}]


def test_a_beat_says_nothing_but_that_somebody_lives(pair):
    sender, receiver = pair
    receiver.heard_at -= 100
    assert receiver.silence > 99
    sender.beat()
    assert receiver.read() == []
    assert receiver.silence < 1


def test_beats_come_by_themselves_while_their_sender_is_busy(pair, monkeypatch):
    monkeypatch.setattr(connection, "BEAT_SECONDS", 0.02)
    sender, receiver = pair
    beats = Beats()
    beats.add(sender)
    receiver.heard_at -= 100
    beats.begin()
    receiver.read()  # waits
    beats.end()
    assert receiver.silence < 50


def test_a_side_that_hung_up_is_closed_and_can_be_written_to_without_harm(pair):
    sender, receiver = pair
    sender.close()
    assert receiver.read() == []
    assert receiver.closed
    receiver.send("anybody there")
    receiver.beat()


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\n", b"[1, 2]\n", b'{"no": "kind"}\n', b"\xff\xfe\n", b"[" * 60_000 + b"\n"]
)
def test_whoever_speaks_another_language_is_cut_off(pair, nonsense):
    sender, receiver = pair
    sender._link.sendall(nonsense)
    assert receiver.read() == []
    assert receiver.closed


def test_nobody_fills_our_memory_before_he_has_said_who_he_is(pair):
    sender, receiver = pair
    sender._link.setblocking(False)
    sent = 0
    while sent <= 2 * LONGEST_GREETING and not receiver.closed:
        sent += sender._link.send(b"x" * 1000)
        receiver.read()
    assert receiver.closed


def test_the_first_address_that_answers_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        link = connect(["127.0.0.2.invalid", "127.0.0.1"], port, seconds=1)
        assert link is not None
        assert link.own_address == "127.0.0.1"
        link.close()
    assert connect(["127.0.0.1"], port, seconds=1) is None
