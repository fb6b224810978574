"""Private networks against their specification (PN1 to PN6)."""

from __future__ import annotations

import base64
import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from nacl.secret import SecretBox

import libp2p
from libp2p.abc import DirectStream, SecureMuxedConnection
from libp2p.errors import DecodeError, DialError, PrivateNetworkRequired, SecurityError
from libp2p.host import HostConfig
from libp2p.protocols.ping import Ping, ping
from libp2p.security.noise import Noise
from libp2p.security.pnet import PreSharedKey
from libp2p.security.pnet._codec import decode_key_file, encode_key_file
from libp2p.security.pnet._salsa20 import hsalsa20, xsalsa20
from libp2p.security.pnet._stream import PIECE
from libp2p.security.tls import Tls
from libp2p.swarm._upgrade import Upgrader
from libp2p.testing import Memory, MemoryNetwork, open_memory_host, seeded_key
from libp2p.testing.conformance.stream import receive_all, receive_exactly
from libp2p.testing.flaky import Dribble, Plain
from libp2p.transports.tcp import Tcp
from libp2p.transports.websocket import WebSocket
from tests.security.noise_raw import streams

KEY = bytes(range(32))
PSK = PreSharedKey(KEY)
OTHER = PreSharedKey(bytes(32))
HEAD = b"/key/swarm/psk/1.0.0/\n"


# --- PN1: the key file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"/base16/\n" + KEY.hex().encode(),
        HEAD + b"/base16/\n" + KEY.hex().upper().encode() + b"\n",
        HEAD + b"/base64/\n" + base64.b64encode(KEY),
        HEAD + b"/base64/\n" + base64.b64encode(KEY) + b"\n",
        HEAD + b"/bin/\n" + KEY,
        HEAD + b"/bin/\n" + KEY + b"\n",
        (HEAD + b"/base16/\n" + KEY.hex().encode() + b"\n").replace(b"\n", b"\r\n"),
    ],
    ids=["base16", "upper", "base64", "base64 line", "bin", "bin line", "windows"],
)
def test_PN1_key_files(data, tmp_path) -> None:
    assert decode_key_file(data) == KEY
    path = tmp_path / "swarm.key"
    path.write_bytes(data)
    assert PreSharedKey.load(path) == PSK
    assert PreSharedKey.load(str(path)) == PreSharedKey.parse(data)


@pytest.mark.parametrize("last", [b"\n", b"\r", b"\0"])
def test_PN1_keys_that_end_like_a_line(last) -> None:
    key = KEY[:31] + last
    assert decode_key_file(HEAD + b"/bin/\n" + key) == key
    assert decode_key_file(HEAD + b"/bin/\n" + key + b"\n") == key


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "begins with"),
        (KEY, "begins with"),
        (b"/key/swarm/psk/2.0.0/\n/base16/\n" + KEY.hex().encode(), "begins with"),
        (HEAD, "base16, base64 or bin"),
        (HEAD + b"/base32/\n" + KEY.hex().encode(), "base16, base64 or bin"),
        (HEAD + b"/base16/\n", "32 bytes, not 0"),
        (HEAD + b"/base16/\n" + KEY.hex().encode()[2:], "32 bytes, not 31"),
        (HEAD + b"/base16/\n" + KEY.hex().encode()[1:], "encoding"),
        (HEAD + b"/base16/\n" + b"zz" * 32, "encoding"),
        (HEAD + b"/base64/\n" + b"!" * 44, "encoding"),
        (HEAD + b"/base64/\n" + b"\xff" * 44, "encoding"),
        (HEAD + b"/bin/\n" + KEY + b"more", "32 bytes, not 36"),
        (HEAD + b"/bin/\n" + bytes(2000), "begins with"),
    ],
)
def test_PN1_what_is_no_key_file(data, why) -> None:
    with pytest.raises(DecodeError, match=why) as caught:
        PreSharedKey.parse(data)
    assert KEY.hex()[2:20] not in str(caught.value), "errors do not tell the key"


@given(st.binary(max_size=200))
def test_PN1_fuzz(data) -> None:
    for content in (data, HEAD + data):
        try:
            assert len(decode_key_file(content)) == 32
        except DecodeError:
            pass


def test_PN1_a_key_survives_its_file() -> None:
    made = PreSharedKey.generate()
    assert PreSharedKey.parse(made.to_file()) == made
    assert PreSharedKey.parse(made.to_file().decode()) == made
    assert made != PSK
    assert made != KEY
    assert hash(PSK) == hash(PreSharedKey(KEY))
    assert encode_key_file(KEY) == HEAD + b"/base16/\n" + KEY.hex().encode() + b"\n"
    assert KEY.hex() not in repr(PSK)
    with pytest.raises(ValueError, match="32 bytes"):
        PreSharedKey(KEY[:31])


def test_PN1_the_file_is_named_when_it_is_wrong(tmp_path) -> None:
    path = tmp_path / "swarm.key"
    path.write_bytes(b"nonsense")
    with pytest.raises(DecodeError, match=r"swarm\.key"):
        PreSharedKey.load(path)


# --- PN2: the stream cipher -------------------------------------------------------------------------------------------

# The example of NaCl's documentation ("Cryptography in NaCl", sections 8 and 9).
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
FIRST_KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
SECOND_KEY = bytes.fromhex("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4")
STREAM = bytes.fromhex(
    "eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880309e645a74e9e0a60d8243acd9177ab5"
)


def test_PN2_the_published_vectors() -> None:
    assert hsalsa20(SHARED, bytes(16)) == FIRST_KEY
    assert hsalsa20(FIRST_KEY, NONCE[:16]) == SECOND_KEY
    assert xsalsa20(FIRST_KEY, NONCE).encrypt(bytes(len(STREAM))) == STREAM


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24), st.binary(max_size=300))
def test_PN2_agrees_with_libsodium(key, nonce, data) -> None:
    """Whose secret box spends the first 32 bytes of the stream on its tag."""
    mine = xsalsa20(key, nonce).encrypt(bytes(32) + data)
    assert mine is not None
    assert mine[32:] == SecretBox(key).encrypt(data, nonce).ciphertext[16:]


@given(st.lists(st.integers(0, 200), max_size=20))
def test_PN2_pieces_of_any_size_are_one_stream(sizes) -> None:
    data = random.Random(1).randbytes(sum(sizes))
    cipher, whole, at = xsalsa20(KEY, NONCE), xsalsa20(KEY, NONCE).encrypt(data), 0
    assert whole is not None
    for size in sizes:
        assert cipher.encrypt(data[at : at + size]) == whole[at : at + size]
        at += size


async def test_PN2_what_is_on_the_wire() -> None:
    """24 random bytes at once, and the stream from its beginning; the other way round likewise."""
    async with streams() as (ours, theirs):
        protected = await PSK.protect(ours)
        nonce = await receive_exactly(theirs, 24)
        await protected.send_all(b"hello")
        await protected.send_all(b" world")
        assert xsalsa20(KEY, nonce).encrypt(await receive_exactly(theirs, 11)) == b"hello world"
        await theirs.send_all(NONCE + (xsalsa20(KEY, NONCE).encrypt(b"answer") or b""))
        assert await receive_exactly(protected, 6) == b"answer"
    async with streams() as (ours, theirs):
        await PSK.protect(ours)
        assert await receive_exactly(theirs, 24) != nonce


@pytest.mark.parametrize("size", [1, 5, 24, 25])
async def test_PN2_nonces_in_pieces(size) -> None:
    async with streams() as (ours, theirs):
        one, other = await PSK.protect(Dribble(ours, size)), await PSK.protect(theirs)
        await one.send_all(b"to the other")
        await other.send_all(b"to the one")
        assert await receive_exactly(one, 10) == b"to the one"
        assert await receive_exactly(other, 12) == b"to the other"


@pytest.mark.parametrize("plain", [False, True])
async def test_PN2_bytes_pass_both_ways(plain) -> None:
    """Of all sizes, and more than the connection holds."""
    async with streams() as (ours, theirs):
        one = await PSK.protect(Plain(ours) if plain else ours)
        other = await PSK.protect(theirs)
        assert isinstance(one, DirectStream) is not plain
        for sender, receiver in ((one, other), (other, one)):
            for size in (1, 23, 1000, PIECE - 1, PIECE, PIECE + 1, 1_000_000):
                data = random.Random(size).randbytes(size)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sender.send_all, data)
                    assert await receive_exactly(receiver, size) == data
        await one.wait_send_all_might_not_block()
        await one.aclose()
        assert await other.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"x")


async def test_PN2_directly() -> None:
    """What the kernel does not take is offered again, and is encrypted once."""
    async with streams() as (ours, theirs):
        one, other = await PSK.protect(ours), await PSK.protect(theirs)
        assert isinstance(one, DirectStream)
        assert isinstance(other, DirectStream)
        assert one.kernel is other.kernel is False
        data = random.Random(1).randbytes(1_000_000)
        sent, got, buffer = 0, bytearray(), memoryview(bytearray(50_000))
        with pytest.raises(trio.WouldBlock):
            other.receive_into_nowait(buffer)
        while len(got) < len(data):
            try:
                while sent < len(data):
                    sent += one.send_nowait(data[sent : sent + 90_000])
            except trio.WouldBlock:
                pass
            try:
                while True:
                    got += buffer[: other.receive_into_nowait(buffer)]
            except trio.WouldBlock:
                pass
        assert got == data
        await one.aclose()
        await other.wait_readable()
        assert other.receive_into_nowait(buffer) == 0


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("size", [0, 10])
async def test_the_end_before_the_nonce(plain, size) -> None:
    async with streams() as (ours, theirs):
        protected = await PSK.protect(Plain(ours) if plain else ours)
        await theirs.send_all(bytes(size))
        await theirs.aclose()
        if size:
            with pytest.raises(SecurityError) as caught:
                await protected.receive_some()
            assert caught.value.stage == "private network"
        else:
            assert await protected.receive_some() == b""
    if plain:
        return
    async with streams() as (ours, theirs):
        protected = await PSK.protect(ours)
        assert isinstance(protected, DirectStream)
        with pytest.raises(trio.WouldBlock):
            protected.receive_into_nowait(memoryview(bytearray(10)))
        await theirs.send_all(bytes(size))
        await theirs.aclose()
        with pytest.raises(SecurityError) if size else trio.fail_after(1):
            assert protected.receive_into_nowait(memoryview(bytearray(10))) == 0


# --- PN3, PN5, PN6: in hosts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("security", [Noise, Tls])
async def test_C1_members_talk(security) -> None:
    network = MemoryNetwork()
    clear: list[bytes] = []
    async with (
        open_memory_host(network, psk=PSK, security=[security]) as one,
        open_memory_host(network, psk=PSK, security=[security]) as two,
    ):
        with network.tap(lambda wire, data: clear.append(data)):
            await one.connect(two.addrs[0])
            assert await ping(one, two.local_peer, count=2)
    everything = b"".join(clear)
    assert everything
    assert b"multistream" not in everything
    assert b"/noise" not in everything
    assert b"libp2p" not in everything


def _open_ws_host(network, ip, psk):
    return libp2p.open_host(
        key=seeded_key(ip),
        listen=[f"/ip4/{ip}/tcp/80/ws"],
        services=[Ping()],
        transports=[WebSocket(below=Memory(network, ip=ip))],
        psk=psk,
    )


async def test_C1_members_talk_over_websocket() -> None:
    """The WebSocket is outside, where proxies see it; a stranger gets through that and no further."""
    network = MemoryNetwork()
    clear: list[bytes] = []
    async with (
        _open_ws_host(network, "10.0.0.1", PSK) as one,
        _open_ws_host(network, "10.0.0.2", PSK) as two,
        _open_ws_host(network, "10.0.0.3", None) as stranger,
    ):
        with network.tap(lambda wire, data: clear.append(data)):
            await one.connect(two.addrs[0])
            assert await ping(one, two.local_peer, count=2)
        with trio.fail_after(60), pytest.raises(DialError):
            await stranger.connect(two.addrs[0])
        assert {connection.peer for connection in two.connections()} == {one.local_peer}
    everything = b"".join(clear)
    assert everything.startswith(b"GET / HTTP/1.1")
    assert b"/noise" not in everything and b"libp2p" not in everything


@pytest.mark.parametrize("theirs", [OTHER, None], ids=["another key", "no key"])
@pytest.mark.parametrize("dialer_is_member", [True, False])
async def test_PN3_strangers_get_nothing(theirs, dialer_is_member) -> None:
    network = MemoryNetwork()
    keys = (PSK, theirs) if dialer_is_member else (theirs, PSK)
    async with (
        open_memory_host(network, psk=keys[0]) as one,
        open_memory_host(network, psk=keys[1]) as two,
    ):
        with trio.fail_after(60), pytest.raises(DialError) as caught:
            await one.connect(two.addrs[0])
        ((_, error),) = caught.value.attempts
        assert isinstance(error, libp2p.Libp2pError | trio.BrokenResourceError)
        assert not one.connections()
        assert not two.connections()


async def test_PN6_a_changed_byte_is_found_above() -> None:
    """This layer has no integrity; whatever is changed on the way, the handshake fails and nobody is connected."""
    network = MemoryNetwork()
    async with (
        open_memory_host(network, psk=PSK) as one,
        open_memory_host(network, psk=PSK) as two,
    ):
        for at in (0, 23, 24, 30, 60, 100, 200):

            def flip(wire, data: bytes, at: int = at) -> bytes | None:
                index = at - wire.sent
                if not wire.dialer or not 0 <= index < len(data):
                    return None
                return data[:index] + bytes((data[index] ^ 1,)) + data[index + 1 :]

            with network.tap(flip):
                try:
                    await one.connect(two.addrs[0])
                except DialError:
                    pass  # unless it was in the last message, of which the dialer hears later
                await trio.sleep(600)
            assert not one.connections(), at
            assert not two.connections(), at


class _LikeQuic(Tcp):
    brings_security = True


async def test_PN5_a_transport_with_its_own_security_is_refused() -> None:
    with pytest.raises(PrivateNetworkRequired, match="_LikeQuic"):
        async with libp2p.open_host(psk=PSK, transports=[Tcp(), _LikeQuic()]):
            raise AssertionError("it started")


class _Finished(SecureMuxedConnection):
    """What such a transport would come with."""

    aborted = False

    def __init__(self) -> None:
        pass

    async def run(self, accept, *, task_status=trio.TASK_STATUS_IGNORED) -> None: ...

    can_open = False

    async def open_stream(self):
        raise AssertionError

    def abort(self, code: int = 0) -> None:
        self.aborted = True

    async def aclose(self) -> None: ...


async def test_PN5_and_if_it_does_not_say_so_its_connections_are() -> None:
    connection = _Finished()
    upgrader = Upgrader([], [], PSK)
    with pytest.raises(SecurityError, match="private network"):
        await upgrader.upgrade(connection, direction=libp2p.abc.Direction.INBOUND, peer=None, progress=None)  # type: ignore[arg-type]
    assert connection.aborted


async def test_PN4_a_host_that_must_be_private_does_not_start_without_a_key() -> None:
    config = HostConfig(force_private_network=True)
    with pytest.raises(PrivateNetworkRequired):
        async with libp2p.open_host(config=config):
            raise AssertionError("it started")
    async with libp2p.open_host(config=config, psk=PSK) as host:
        assert not host.connections()


def test_the_extra_is_named_when_it_is_missing(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"libp2p-trio\[pnet\]"):
        PreSharedKey(KEY)


async def test_over_a_slow_and_narrow_link() -> None:
    """Writes are cut everywhere, and the keystream never slips."""
    network = MemoryNetwork(buffer=3000, latency=0.01)
    data = random.Random(7).randbytes(300_000)

    async def echo(stream: libp2p.Stream) -> None:
        await stream.send_all(await receive_all(stream))

    async with (
        open_memory_host(network, psk=PSK) as one,
        open_memory_host(network, psk=PSK) as two,
    ):
        two.handle("/echo/1", echo)
        await one.connect(two.addrs[0])
        async with await one.open_stream(two.local_peer, "/echo/1") as stream:
            await stream.send_all(data)
            await stream.send_eof()
            assert await receive_all(stream) == data
