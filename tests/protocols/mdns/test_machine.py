"""What a peer says and hears on the local network (checklist MD1 to MD7; reliability case R7)."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.addressing import parse, with_peer
from libp2p.peer_id import PeerId
from libp2p.protocols.mdns import MdnsConfig
from libp2p.protocols.mdns._codec import (
    AAAA,
    ANY,
    MAX_SENT,
    PTR,
    SRV,
    TXT,
    A,
    Packet,
    Ptr,
    Question,
    Txt,
    decode,
    encode_query,
    encode_response,
    name,
)
from libp2p.protocols.mdns._machine import META, Heard, MdnsMachine, suitable

SERVICE = name("_p2p._udp.local")
LAN = parse("/ip4/192.168.1.7/tcp/4001")


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


def make(number: int = 0, *, addrs=(LAN,), service=SERVICE, **config) -> MdnsMachine:
    """A machine that has asked its first question and has nothing to say."""
    config = {"first_questions": (0.0,), "interval": 1000.0, **config}
    machine = MdnsMachine(
        peer(number), service=service, config=MdnsConfig(**config), rng=random.Random(number), now=0.0
    )
    machine.set_addrs(addrs, 0.0)
    machine.handle_timeout(0.5)
    machine.data_to_send()
    return machine


def sent(machine: MdnsMachine, now: float) -> list[Any]:
    """What is sent at ``now``, if anything is due."""
    if machine.next_timeout() <= now:
        machine.handle_timeout(now)
    return [decode(data) for data in machine.data_to_send()]


def answer(machine: MdnsMachine, question: Question, now: float = 10.0) -> list[Any]:
    assert machine.receive_packet(encode_query([question]), now) == []
    return sent(machine, now + 1)


def told(number: int, *addrs: str, ttl: int = 120, label: bytes = b"other") -> bytes:
    """A packet in which ``number`` says where it is."""
    strings = tuple([b"dnsaddr=" + str(with_peer(parse(addr), peer(number))).encode() for addr in addrs])
    owner = (label, *SERVICE)
    return encode_response([Ptr(SERVICE, owner, ttl)], [Txt(owner, strings, ttl)])


# --- asking -----------------------------------------------------------------------------------------------------------


def test_md1_asks_at_the_start_and_once_in_a_while() -> None:
    machine = MdnsMachine(peer(0), service=SERVICE, config=MdnsConfig(), rng=random.Random(0), now=100.0)
    times: list[float] = []
    while len(times) < 6:
        now = machine.next_timeout()
        machine.handle_timeout(now)
        for packet in machine.data_to_send():
            assert decode(packet) == Packet(response=False, questions=(Question(SERVICE, PTR),))
            times.append(now - 100)
    assert times[:3] == [0, 1, 3]
    assert all(48 <= later - earlier <= 72 for earlier, later in itertools.pairwise(times[2:]))


def test_asks_again_when_the_network_has_changed() -> None:
    machine = make()
    assert sent(machine, 20.0) == []
    machine.ask_again(20.0)
    assert [packet.response for packet in sent(machine, 20.0)] == [False]


# --- answering --------------------------------------------------------------------------------------------------------


def test_md1_md2_the_answer() -> None:
    machine = make(addrs=[with_peer(LAN, peer(0)), parse("/ip4/10.0.0.1/udp/4001/quic-v1")])
    (packet,) = answer(machine, Question(SERVICE, PTR))
    pointer, text = packet.records
    assert isinstance(pointer, Ptr)
    assert pointer.name == SERVICE
    assert pointer.target[1:] == SERVICE
    assert re.fullmatch(rb"[a-z0-9]{32,63}", pointer.target[0])
    assert text == Txt(
        pointer.target,
        (
            f"dnsaddr=/ip4/192.168.1.7/tcp/4001/p2p/{peer(0)}".encode(),
            f"dnsaddr=/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{peer(0)}".encode(),
        ),
        360,
    )


def test_md1_names_are_random() -> None:
    names = {answer(make(number), Question(SERVICE, PTR))[0].records[1].name for number in range(20)}
    assert len(names) == 20


def test_what_is_asked_about_one_peer_is_answered() -> None:
    machine = make()
    own = machine._name
    for question in (Question(own, TXT), Question(own, SRV), Question(own, ANY), Question(SERVICE, ANY)):
        assert len(answer(make(), Question(own, question.type) if question.name == own else question)) == 1
    host = (own[0], b"local")
    for number, kind in enumerate((A, AAAA, ANY)):
        assert len(answer(machine, Question(host, kind), now=10.0 + 5 * number)) == 1


def test_what_others_are_asked_is_not_answered() -> None:
    for question in (
        Question(name("_http._tcp.local"), PTR),
        Question(SERVICE, TXT),
        Question((b"somebody", *SERVICE), TXT),
        Question(META, A),
        Question(name("_p2p-00ff._udp.local"), PTR),  # MD5
    ):
        assert answer(make(), question) == []


def test_md3_the_service_is_listed() -> None:
    first, second = answer(make(), Question(META, PTR))
    assert first.records == (Ptr(META, SERVICE, 360),)
    assert second.records[0].name == SERVICE
    (only,) = answer(make(addrs=[]), Question(META, PTR))
    assert only.records == (Ptr(META, SERVICE, 360),)


def test_without_an_address_there_is_no_answer() -> None:
    machine = make(addrs=[])
    assert answer(machine, Question(SERVICE, PTR)) == []
    machine.say_farewell()
    assert machine.data_to_send() == []


def test_answers_wait_for_a_moment_and_for_each_other() -> None:
    machine = make()
    question = encode_query([Question(SERVICE, PTR)])
    answers = []
    for step in range(1, 500):  # somebody asks a hundred times a second
        now = 10 + step / 100
        machine.receive_packet(question, now)
        answers += [now] * len(sent(machine, now))
    assert 10.02 <= answers[0] <= 10.14
    assert len(answers) == 5
    assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(answers))


def test_new_addresses_are_announced_without_being_asked() -> None:
    machine = make()
    machine.set_addrs([LAN], 10.0)
    assert sent(machine, 12.0) == []
    machine.set_addrs([LAN, parse("/ip4/10.0.0.1/tcp/1")], 20.0)
    (packet,) = sent(machine, 22.0)
    assert len(packet.records[1].strings) == 2


def test_farewell() -> None:
    machine = make()
    machine.say_farewell()
    (data,) = machine.data_to_send()
    assert {record.ttl for record in decode(data).records} == {0}


def test_md2_long_addresses_are_left_out() -> None:
    long = parse("/dns4/" + "x" * 60 + "." + "y" * 60 + "." + "z" * 60 + ".local/tcp/1")
    (packet,) = answer(make(addrs=[long, LAN]), Question(SERVICE, PTR))
    assert len(packet.records[1].strings) == 1


def test_addresses_by_name_are_told() -> None:
    (packet,) = answer(make(addrs=[parse("/dns4/printer.local/tcp/1")]), Question(SERVICE, PTR))
    assert packet.records[1].strings == (f"dnsaddr=/dns4/printer.local/tcp/1/p2p/{peer(0)}".encode(),)


def test_md7_the_answer_is_one_packet() -> None:
    machine = make(addrs=[parse(f"/ip4/10.0.0.{number}/udp/4001/quic-v1") for number in range(100)])
    machine.receive_packet(encode_query([Question(SERVICE, PTR)]), 10.0)
    machine.handle_timeout(12.0)
    (data,) = machine.data_to_send()
    assert 1200 < len(data) <= MAX_SENT


def test_md7_which_addresses_suit() -> None:
    given_ = [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip4/192.168.0.1/tcp/1",
        "/ip4/192.168.0.1/tcp/1/ws",
        "/ip4/192.168.0.1/tcp/1/tls/ws",
        f"/ip4/192.168.0.1/tcp/1/p2p/{peer(1)}/p2p-circuit",
        "/ip4/192.168.0.1/udp/1/quic-v1/webtransport",
        "/ip4/169.254.0.1/tcp/1",
        "/ip6/fe80::1/tcp/1",
        "/ip6/fd00::1/udp/1/quic-v1",
        "/dns4/printer.local/tcp/1",
        "/dns4/example.com/tcp/1",
        "/dnsaddr/example.com",
        "/memory/7",
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/224.0.0.251/udp/1/quic-v1",
        "/ip4/198.51.100.7/tcp/1",
    ]
    assert list(map(str, suitable(map(parse, given_)))) == [
        "/ip4/192.168.0.1/tcp/1",
        "/ip6/fd00::1/udp/1/quic-v1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip4/169.254.0.1/tcp/1",
        "/dns4/printer.local/tcp/1",
        "/ip4/198.51.100.7/tcp/1",
    ]
    assert list(map(str, suitable(map(parse, given_[:1])))) == given_[:1]


# --- hearing ----------------------------------------------------------------------------------------------------------


def test_what_others_say() -> None:
    machine = make()
    (heard,) = machine.receive_packet(told(1, "/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/tcp/2"), 10.0)
    assert heard == Heard(peer(1), (parse("/ip4/10.0.0.1/tcp/1"), parse("/ip6/fd00::1/tcp/2")), 120, True)
    (again,) = machine.receive_packet(told(1, "/ip6/fd00::1/tcp/2", "/ip4/10.0.0.1/tcp/1"), 100.0)
    assert not again.news
    (moved,) = machine.receive_packet(told(1, "/ip4/10.0.0.2/tcp/1"), 110.0)
    assert moved.news
    (late,) = machine.receive_packet(told(1, "/ip4/10.0.0.2/tcp/1"), 231.0)
    assert late.news  # what it said had ended


def test_a_peer_that_says_farewell_is_news_when_it_comes_back() -> None:
    machine = make()
    machine.receive_packet(told(1, "/ip4/10.0.0.1/tcp/1"), 10.0)
    assert machine.receive_packet(told(1, "/ip4/10.0.0.1/tcp/1", ttl=0), 11.0) == []
    assert machine.receive_packet(told(1, "/ip4/10.0.0.1/tcp/1"), 12.0)[0].news


def test_md4_two_machines_hear_each_other_and_not_themselves() -> None:
    one, two = make(1), make(2)
    question = encode_query([Question(SERVICE, PTR)])
    for machine in (one, two):
        machine.receive_packet(question, 10.0)
        machine.handle_timeout(12.0)
    packets = one.data_to_send() + two.data_to_send()
    assert [heard.peer for data in packets for heard in one.receive_packet(data, 12.0)] == [peer(2)]
    assert [heard.peer for data in packets for heard in two.receive_packet(data, 12.0)] == [peer(1)]


def test_md4_own_addresses_under_another_name_are_not_heard() -> None:
    assert make(1).receive_packet(told(1, "/ip4/10.0.0.1/tcp/1"), 10.0) == []


def test_md5_another_network_is_not_heard() -> None:
    private = make(service=name("_p2p-00ff._udp.local"))
    assert private.receive_packet(told(1, "/ip4/10.0.0.1/tcp/1"), 10.0) == []
    assert answer(private, Question(SERVICE, PTR)) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"dnsaddr=",
        b"dnsaddr=/ip4/10.0.0.1/tcp/1",  # whose?
        b"dnsaddr=/p2p/" + str(peer(1)).encode(),  # where?
        b"dnsaddr=nonsense",
        b"dnsaddr=\xff\xfe",
        b"something=/ip4/10.0.0.1/tcp/1/p2p/" + str(peer(1)).encode(),
        b"dnsaddr=/dns4/example.com/tcp/1/p2p/" + str(peer(1)).encode(),
        b"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/" + str(peer(2)).encode() + b"/p2p-circuit/p2p/" + str(peer(1)).encode(),
    ],
)
def test_strings_that_say_nothing(text: bytes) -> None:
    owner = (b"x", *SERVICE)
    assert make().receive_packet(encode_response([Txt(owner, (text,), 60)] if text else []), 10.0) == []
    good = b"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/" + str(peer(3)).encode()
    packet = encode_response([Txt(owner, (text, good) if text else (good,), 60)])
    assert [heard.peer for heard in make().receive_packet(packet, 10.0)] == [peer(3)]


@given(st.binary(max_size=200))
def test_garbage_says_nothing(data: bytes) -> None:
    machine = make()
    assert machine.receive_packet(data, 10.0) == []


def test_r7_so_many_new_peers_a_minute() -> None:
    machine = make(new_peers_per_minute=100)
    heard = 0
    for number in range(1, 10_000, 10):
        heard += len(machine.receive_packet(told(number, "/ip4/10.0.0.1/tcp/1"), 10.0 + number / 1000))
    assert (heard, machine.dropped) == (100, 900)
    assert len(machine.receive_packet(told(1, "/ip4/10.0.0.1/tcp/1"), 30.0)) == 1  # is known
    assert len(machine.receive_packet(told(20_000, "/ip4/10.0.0.1/tcp/1"), 75.0)) == 1  # the next minute


def test_r7_the_table_has_a_bound() -> None:
    machine = make(peers=10)
    for number in range(1, 100):
        machine.receive_packet(told(number, "/ip4/10.0.0.1/tcp/1"), 10.0)
    assert len(machine._heard) == 10


def test_r7_so_many_addresses_of_a_peer() -> None:
    machine = make(addrs_per_peer=3)
    (heard,) = machine.receive_packet(told(1, *[f"/ip4/10.0.0.{number}/tcp/1" for number in range(20)]), 10.0)
    assert len(heard.addrs) == 3


def test_r7_lives_have_a_bound() -> None:
    (heard,) = make().receive_packet(told(1, "/ip4/10.0.0.1/tcp/1", ttl=2**32 - 1), 10.0)
    assert heard.ttl == 3600


def test_names_of_rust_do_not_end_in_the_service() -> None:
    text = Txt((b"random",), (b"dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/" + str(peer(1)).encode(),), 60)
    for service, expected in ((SERVICE, [peer(1)]), (name("_p2p-00ff._udp.local"), [])):
        packet = encode_response([Ptr(service, (b"random",), 60)], [text])
        assert [heard.peer for heard in make().receive_packet(packet, 10.0)] == expected


def test_what_has_ended_is_forgotten() -> None:
    machine = make()
    machine.receive_packet(told(1, "/ip4/10.0.0.1/tcp/1"), 10.0)
    machine.handle_timeout(500.0)
    assert len(machine._heard) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"interval": 0}, {"ttl": 0}, {"min_delay": 1}, {"min_pause": -1}, {"peers": 0}, {"packets_burst": 0}],
)
def test_configs_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        MdnsConfig(**wrong)


def test_no_first_questions() -> None:
    machine = MdnsMachine(
        peer(0), service=SERVICE, config=MdnsConfig(first_questions=()), rng=random.Random(0), now=5.0
    )
    assert machine.next_timeout() == 5.0
