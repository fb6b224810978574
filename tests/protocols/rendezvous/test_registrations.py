"""The table of a rendezvous point, and its cookies (checklist RV4, RV7, RV8; reliability case R7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.protocols.rendezvous import RendezvousConfig, Status
from libp2p.protocols.rendezvous._registrations import Cookies, Refused, Registrations, check_namespace

HOUR = 3600.0


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


def table(**config) -> Registrations:
    return Registrations(RendezvousConfig(**config))


def put(registrations: Registrations, namespace: str, number: int, *, now: float = 0.0, life: float = 2 * HOUR):
    return registrations.register(namespace, peer(number), b"record", expires=now + life, now=now)


def found(registrations: Registrations, namespace: str = "", **more) -> list[tuple[str, int]]:
    more.setdefault("now", 0.0)
    return [
        (item.namespace, int.from_bytes(bytes(item.peer)[2:], "big"))
        for item in registrations.discover(namespace, **more)
    ]


def test_who_is_registered_is_found_in_order() -> None:
    registrations = table()
    for name, number in (("a", 1), ("b", 2), ("a", 3)):
        put(registrations, name, number)
    assert found(registrations, "a") == [("a", 1), ("a", 3)]
    assert found(registrations, "b") == [("b", 2)]
    assert found(registrations, "c") == []
    assert found(registrations) == [("a", 1), ("b", 2), ("a", 3)]  # RV8


def test_rv7_pages_and_what_is_newer() -> None:
    registrations = table(page=2)
    numbers = [put(registrations, "a", number).number for number in range(5)]
    assert numbers == sorted(numbers)
    assert found(registrations, "a") == [("a", 0), ("a", 1)]
    assert found(registrations, "a", after=numbers[1], limit=1) == [("a", 2)]
    assert found(registrations, "a", after=numbers[2]) == [("a", 3), ("a", 4)]
    assert found(registrations, "a", after=numbers[4]) == []
    put(registrations, "a", 0)  # a renewal is news
    assert found(registrations, "a", after=numbers[4]) == [("a", 0)]
    assert len(registrations) == 5
    assert found(registrations, "a", limit=0) == []


def test_what_has_ended_is_not_found_and_freed() -> None:
    registrations = table()
    put(registrations, "a", 1, life=10)
    put(registrations, "a", 2, life=20)
    assert registrations.next_timeout() == 10
    assert found(registrations, "a", now=10.0) == [("a", 2)]
    assert [item.peer for item in registrations.handle_timeout(20.0)] == [peer(2)]
    assert (len(registrations), registrations.next_timeout()) == (0, None)
    assert found(registrations, now=20.0) == []


def test_unregistering() -> None:
    registrations = table()
    put(registrations, "a", 1)
    assert not registrations.unregister("a", peer(2))
    assert not registrations.unregister("b", peer(1))
    assert registrations.unregister("a", peer(1))
    assert found(registrations) == []


def refused(status: Status):
    return pytest.raises(Refused, check=lambda exc: exc.status == status)


def test_r7_a_peer_is_in_so_many_namespaces() -> None:
    registrations = table(registrations_per_peer=2)
    put(registrations, "a", 1)
    put(registrations, "b", 1)
    with refused(Status.UNAVAILABLE):
        put(registrations, "c", 1)
    put(registrations, "b", 1)  # a renewal takes no room
    put(registrations, "c", 2)
    registrations.unregister("a", peer(1))
    put(registrations, "c", 1)


def test_r7_there_are_so_many_in_all() -> None:
    registrations = table(registrations=3)
    for number in range(3):
        put(registrations, "a", number, life=10 + number)
    with refused(Status.UNAVAILABLE):
        put(registrations, "a", 3)
    put(registrations, "a", 0, life=10)
    put(registrations, "a", 3, now=10.0)  # what has ended makes room
    assert found(registrations, "a", now=10.0) == [("a", 1), ("a", 2), ("a", 3)]


def test_r7_there_are_so_many_bytes_in_all() -> None:
    registrations = table(record_bytes=100)
    registrations.register("a", peer(1), bytes(60), expires=10, now=0)
    with refused(Status.UNAVAILABLE):
        registrations.register("a", peer(2), bytes(41), expires=10, now=0)
    registrations.register("a", peer(2), bytes(40), expires=10, now=0)
    registrations.register("a", peer(1), bytes(60), expires=10, now=0)
    registrations.unregister("a", peer(2))
    registrations.register("a", peer(3), bytes(40), expires=10, now=0)


@pytest.mark.parametrize("ttl", [0, 1, 2 * 3600 - 1, 72 * 3600 + 1, 2**63, 2**64 - 1])
def test_r7_rv4_lives_out_of_bounds(ttl: int) -> None:
    with refused(Status.INVALID_TTL):
        table().life(ttl)


def test_rv4_lives() -> None:
    assert [table().life(ttl) for ttl in (None, 7200, 259_200)] == [7200, 7200, 259_200]


@pytest.mark.parametrize("name", ["", "x" * 256, "ä" * 128])
def test_r7_rv4_names_out_of_bounds(name: str) -> None:
    with refused(Status.INVALID_NAMESPACE):
        put(table(), name, 1)
    with refused(Status.INVALID_NAMESPACE):
        check_namespace(name)


def test_rv4_the_longest_name() -> None:
    put(table(), "x" * 255, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_ttl": 0},
        {"default_ttl": 1},
        {"max_ttl": 3600},
        {"page": 0},
        {"page": 1001},
        {"registrations": 0},
        {"streams_at_once": 0},
        {"answer_bytes": 100},
        {"answer_bytes": 1024 * 1024},
        {"timeout": 0},
    ],
)
def test_configs_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RendezvousConfig(**wrong)


# --- against a slow and obvious model ---------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["register", "unregister", "wait", "discover"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 4),
        st.integers(1, 30),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(steps)
def test_behaves_like_a_list(todo) -> None:
    registrations = table(registrations=8, registrations_per_peer=2)
    model: list[tuple[str, int, float, int]] = []  # namespace, peer, end, number
    now = 0.0
    for verb, name, number, amount in todo:
        model = [item for item in model if item[2] > now]
        others = [item for item in model if item[:2] != (name, number)]
        if verb == "register":
            fits = len(others) < 8 and sum(item[1] == number for item in others) < 2
            try:
                made = put(registrations, name, number, now=now, life=amount)
            except Refused:
                assert not fits
            else:
                assert fits
                model = [*others, (name, number, now + amount, made.number)]
        elif verb == "unregister":
            registrations.handle_timeout(now)
            assert registrations.unregister(name, peer(number)) == (others != model)
            model = others
        elif verb == "wait":
            now += amount / 4
        else:
            after = model[amount % len(model)][3] if model else 0
            wanted = [(item[0], item[1]) for item in model if item[0] == name and item[3] > after]
            assert found(registrations, name, after=after, now=now) == wanted
            assert found(registrations, now=now) == [(item[0], item[1]) for item in model]
    registrations.handle_timeout(now + 1000)
    assert len(registrations) == 0
    assert not registrations._by_name
    assert not registrations._per_peer
    assert not registrations._order.numbers
    assert registrations._bytes == 0


# --- cookies ----------------------------------------------------------------------------------------------------------

KEY = bytes(range(32))


@given(st.text(max_size=20), st.integers(0, 2**64 - 1))
def test_cookies_are_known_again(namespace: str, number: int) -> None:
    assert Cookies(KEY).read(namespace, Cookies(KEY).bake(namespace, number)) == number


def test_r7_cookies_of_others_are_refused() -> None:
    cookie = Cookies(KEY).bake("a", 7)
    for wrong in (b"", b"x", cookie[:-1], cookie + b"x", cookie[:8], Cookies(bytes(32)).bake("a", 7), bytes(500)):
        with pytest.raises(DecodeError):
            Cookies(KEY).read("a", wrong)
    for namespace in ("", "b"):  # RV7
        with pytest.raises(DecodeError):
            Cookies(KEY).read(namespace, cookie)
    for index in range(len(cookie)):
        changed = bytearray(cookie)
        changed[index] ^= 1
        with pytest.raises(DecodeError):
            Cookies(KEY).read("a", bytes(changed))


def test_rust_can_read_cookies() -> None:
    """Eight bytes, and a text of at most 255: its clients refuse an answer whose cookie is anything else."""
    cookie = Cookies(KEY).bake("a", 2**64 - 1)
    assert len(cookie) > 8
    assert len(cookie[8:].decode()) <= 255


@pytest.mark.parametrize("size", [0, 15, 65])
def test_keys_have_a_size(size: int) -> None:
    with pytest.raises(ValueError):
        Cookies(bytes(size))
