"""Bytes from the network and from peers that lie: what comes of them is events, or nothing, and no exception."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from qh3._hazmat import Buffer
from qh3.quic.packet import QuicTransportParameters, push_quic_transport_parameters

from libp2p.transports.quic._engine import _Bridge
from tests.transports.quic.pairs import Pair, events, identity, make_machines, make_pair

Mutation = tuple[str, int, int]
"""What is done to a datagram, and two numbers that say where and how."""

mutations = st.tuples(
    st.sampled_from(["flip", "cut", "extend", "repeat", "lose", "swap"]), st.integers(0, 2**16), st.integers(0, 255)
)


def mutate(data: bytes, last: bytes, mutation: Mutation) -> list[bytes]:
    """The datagrams that arrive instead of ``data``, which comes after ``last``."""
    kind, where, how = mutation
    where %= max(1, len(data))
    if kind == "flip":
        return [data[:where] + bytes([data[where] ^ (how or 1)]) + data[where + 1 :]]
    if kind == "cut":
        return [data[:where]]
    if kind == "extend":
        return [data + bytes([how]) * (where % 64)]
    if kind == "swap":
        return [data[:where] + last[where:]]
    return [data, data, last] if kind == "repeat" else []


def carry(pair: Pair, plan: list[Mutation | None], rounds: int) -> None:
    """Exchange datagrams; those in ``plan`` with a mutation arrive changed, in the order they are sent."""
    waiting, last = list(plan), b""
    for _ in range(rounds):
        for source, target in ((pair.client, pair.server), (pair.server, pair.client)):
            source.handle_timeout(pair.now)
            for data, _ in source.transmit(pair.now):
                mutation = waiting.pop(0) if waiting else None
                arriving = [data] if mutation is None else mutate(data, last, mutation)
                target.receive(arriving, source_address(source is pair.client), pair.now)
                last = data
        pair.now += 0.05


def source_address(client: bool) -> tuple[str, int]:
    return ("127.0.0.1", 4001 if client else 4002)


plans = st.lists(st.none() | mutations, max_size=30)


@settings(max_examples=25)
@given(plans)
def test_mutated_handshakes(plan: list[Mutation | None]) -> None:
    """Nobody is taken for somebody else."""
    pair = make_pair()
    carry(pair, plan, 15)
    assert pair.client.remote_key in (None, identity(2)[0].public_key)
    assert pair.server.remote_key in (None, identity(1)[0].public_key)


@settings(max_examples=25)
@given(plans)
def test_mutated_packets_of_a_connection(plan: list[Mutation | None]) -> None:
    """Count as lost: the stream arrives whole."""
    machines = make_machines()
    stream_id = machines.client.open_stream()
    machines.client.send_data(stream_id, bytes(range(256)) * 100)
    machines.client.send_eof(stream_id)
    carry(machines.pair, plan, 60)
    chunks = [event for event in events(machines.pair.server) if event[0] == "stream_data"]
    assert b"".join(chunk[2] for chunk in chunks if isinstance(chunk[2], bytes)) == bytes(range(256)) * 100
    assert chunks[-1][3]


def lying(parameters: Callable[[_Bridge], bytes], client: bool) -> Pair:
    """A handshake in which one end says this of itself."""
    honest = _Bridge.serialize_transport_parameters

    def said(bridge: _Bridge) -> bytes:
        return parameters(bridge) if bridge.configuration.is_client is client else honest(bridge)

    with mock.patch.object(_Bridge, "serialize_transport_parameters", said):
        pair = make_pair()
        pair.exchange(12)
    return pair


def check(pair: Pair) -> None:
    """Nobody is taken for somebody else, and both ends can be used, as far as they are ready, and ended."""
    for end, other in ((pair.client, 2), (pair.server, 1)):
        assert end.remote_key in (None, identity(other)[0].public_key)
        events(end)
        if end.can_open:
            end.send(end.open_stream(), bytes(5000))
    pair.exchange(3)
    for end in (pair.client, pair.server):
        end.close(0, "")
    pair.exchange(2)


@settings(max_examples=25)
@given(st.binary(max_size=200), st.booleans())
def test_transport_parameters_that_are_none(parameters: bytes, client: bool) -> None:
    check(lying(lambda bridge: parameters, client))


numbers = st.none() | st.sampled_from([0, 1, 2, 63, 2**30, 2**60, 2**62 - 1]) | st.integers(0, 2**62 - 1)


@settings(max_examples=25)
@given(
    st.booleans(),
    st.fixed_dictionaries(
        dict.fromkeys(
            (
                "max_idle_timeout",
                "max_udp_payload_size",
                "initial_max_data",
                "initial_max_stream_data_bidi_local",
                "initial_max_stream_data_bidi_remote",
                "initial_max_streams_bidi",
                "ack_delay_exponent",
                "max_ack_delay",
                "active_connection_id_limit",
            ),
            numbers,
        )
    ),
)
def test_transport_parameters_of_any_size(client: bool, parameters: dict[str, int | None]) -> None:
    def encoded(bridge: _Bridge) -> bytes:
        buf = Buffer(capacity=512)
        said = QuicTransportParameters(initial_source_connection_id=bridge.local_initial_source_connection_id)
        if not client:
            said.original_destination_connection_id = bridge.original_destination_connection_id
        for name, value in parameters.items():
            setattr(said, name, value)
        push_quic_transport_parameters(buf, said)
        return bytes(buf.data)

    check(lying(encoded, client))
