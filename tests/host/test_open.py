"""The life of a host: how it starts, how it is left, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from libp2p.abc import Host, ProtocolId, Service, Stream, StreamHandler
from libp2p.errors import ConnectionClosed, DialError, TransportError
from libp2p.events import PeerDisconnected
from libp2p.host import HostConfig, open_host
from libp2p.muxers.yamux import Yamux
from libp2p.peerstore import MemoryPeerstore
from libp2p.security.noise import Noise
from libp2p.swarm import Gater, SwarmConfig
from libp2p.testing import MemoryNetwork, memory_network, seeded_key
from libp2p.transports.dns import DnsResolver
from tests.protocols.waiting import settled, until
from tests.swarm.nodes import P, echo, open_node, works


class Scripted(Service):
    """A service that does as it is told.

    Args:
        fail: what ``run`` raises, after so many seconds.
        ready: whether it gets so far as to be started.
        returns: whether it is finished then.
    """

    def __init__(
        self, *, fail: BaseException | None = None, after: float = 0, ready: bool = True, returns: bool = False
    ) -> None:
        self._fail = fail
        self._after = after
        self._ready = ready
        self._returns = returns
        self.log: list[str] = []

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        return {P: echo}

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.log.append("started")
        if not self._ready and self._fail is not None:
            raise self._fail
        task_status.started()
        try:
            await trio.sleep(self._after)
            if self._fail is not None:
                raise self._fail
            if not self._returns:
                await trio.sleep_forever()
        finally:
            self.log.append("ended")


# --- left in order ----------------------------------------------------------------------------------------------------


async def test_when_the_block_is_left_nothing_is_running() -> None:
    network = MemoryNetwork()
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_node(network, "a", services=[Scripted()]) as a, open_node(network, "b") as b:
        await b.connect(a.addrs[0])
        async with await b.open_stream(a.local_peer, P) as stream:
            assert await works(stream)
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert not network.connections and not network.listening
    assert not a.connections() and not any(a.swarm.scopes.usage().values())


async def test_peers_are_told() -> None:
    network = MemoryNetwork()
    async with open_node(network, "b") as b:
        with b.subscribe(PeerDisconnected) as events:
            async with open_node(network, "a") as a:
                await a.connect(b.addrs[0])
                await until(b.connections)
                started = trio.current_time()
            assert (await events.receive()).peer == a.local_peer
            assert trio.current_time() == started


async def test_handlers_are_cancelled() -> None:
    ended = []

    async def hangs(stream: Stream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    network = MemoryNetwork()
    async with open_node(network, "b") as b:
        async with open_node(network, "a") as a:
            a.handle(P, hangs)
            await b.connect(a.addrs[0])
            stream = await b.open_stream(a.local_peer, P)
            await stream.send_all(b"x")
            await settled()
            now = trio.current_time()
        assert ended == [now]
        with pytest.raises(ConnectionClosed):
            await stream.receive_some()


@pytest.mark.parametrize("grace", [0.0, 1.0])
async def test_farewells_take_no_longer_than_close_grace(grace) -> None:
    """A peer that does not read keeps a goodbye from leaving."""
    network = MemoryNetwork(buffer=1024)
    config = HostConfig(close_grace=grace, swarm=SwarmConfig(close_timeout=5))
    async with open_node(network, "b") as b:
        b.handle(P, echo)
        async with open_node(network, "a", config=config) as a:
            await a.connect(b.addrs[0])
            stream = await a.open_stream(b.local_peer, P)
            network.cut("a", "b")
            with trio.move_on_after(1):
                await stream.send_all(bytes(100_000))
            started = trio.current_time()
        assert trio.current_time() - started <= grace + 0.01


async def test_a_service_may_say_farewell_while_connections_still_stand() -> None:
    class Polite(Service):
        said = False

        async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(1, shield=True):
                    async with await host.open_stream(host.connections()[0].peer, P) as stream:
                        self.said = await works(stream)

    network = MemoryNetwork()
    polite = Polite()
    async with open_node(network, "b") as b, open_node(network, "a", services=[polite]) as a:
        b.handle(P, echo)
        await a.connect(b.addrs[0])
    assert polite.said


# --- left by an exception ---------------------------------------------------------------------------------------------


async def test_an_exception_arrives_as_itself() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with memory_network(2, connect="full"):
            raise error
    assert caught.value is error


async def test_it_keeps_its_cause_and_context() -> None:
    with pytest.raises(ValueError, match="second") as caught:
        async with memory_network(1):
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904 - the context is the subject
    assert isinstance(caught.value.__context__, KeyError)
    assert caught.value.__cause__ is None and not caught.value.__suppress_context__
    with pytest.raises(ValueError, match="second") as caught:
        async with memory_network(1):
            raise ValueError("second") from OSError("cause")
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_group_of_the_user_stays_whole() -> None:
    mine = ExceptionGroup("mine", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with memory_network(1):
            raise mine
    assert caught.value is mine

    async def fails() -> None:
        raise ValueError("two")

    with pytest.raises(ExceptionGroup, match="nursery") as caught:
        async with memory_network(1), trio.open_nursery() as nursery:
            nursery.start_soon(fails)
    assert [type(exc) for exc in caught.value.exceptions] == [ValueError]


async def test_an_error_of_ours_is_caught_by_its_name() -> None:
    async with memory_network(1) as (b,):
        with pytest.raises(DialError):
            async with open_node(MemoryNetwork(), "a") as a:
                await a.connect(b.local_peer, ["/memory/99"])


async def test_it_skips_the_manners_and_leaves_nothing() -> None:
    network = MemoryNetwork()
    started = trio.current_time()
    async with open_node(network, "b") as b:
        b.handle(P, echo)
        with pytest.raises(ZeroDivisionError):
            async with open_node(network, "a") as a:
                await a.connect(b.addrs[0])
                raise ZeroDivisionError
        await settled()
        assert trio.current_time() == started
        assert not b.connections() and len(network.listening) == 1


# --- left by cancellation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 1.0])
async def test_cancelled(after) -> None:
    network = MemoryNetwork()
    service = Scripted()
    with trio.move_on_after(after) as scope:
        async with open_node(network, "a", services=[service]), open_node(network, "b"):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert service.log in ([], ["started", "ended"])
    assert not network.listening


async def test_cancelled_while_a_group_is_on_its_way() -> None:
    """Neither the cancellation nor the error is lost on the other's account."""

    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(1):
        async with open_node(MemoryNetwork(), "a"), trio.open_nursery() as nursery:
            nursery.start_soon(fails)
            nursery.start_soon(trio.sleep_forever)
    assert [str(exc) for exc in caught.value.exceptions] == ["on the way out"]


# --- services ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ready", [True, False])
async def test_a_service_that_raises_ends_the_host_with_its_own_exception(ready) -> None:
    error = KeyError("a bug")
    network = MemoryNetwork()
    other = Scripted()
    other.__class__ = type("Other", (Scripted,), {"handlers": {}})
    with pytest.raises(KeyError) as caught:
        async with open_node(network, "a", services=[other, Scripted(fail=error, after=5, ready=ready)]):
            await trio.sleep_forever()
    assert caught.value is error
    assert other.log == ["started", "ended"]
    assert trio.current_time() == (5 if ready else 0) or ready
    assert not network.listening


async def test_a_service_and_the_block_fail_together() -> None:
    """Two exceptions cannot come out as one."""

    class Bad(Service):
        async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("a bug in the farewell")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_node(MemoryNetwork(), "a", services=[Bad()]):
            raise ValueError("mine")
    assert caught.group_contains(KeyError) and caught.group_contains(ValueError)


async def test_a_service_that_returns_is_finished_and_that_is_fine() -> None:
    service = Scripted(returns=True)
    network = MemoryNetwork()
    async with open_node(network, "a", services=[service]) as a, open_node(network, "b") as b:
        await trio.sleep(1)
        assert service.log == ["started", "ended"]
        async with await b.open_stream(a.addrs[0], P) as stream:
            assert await works(stream)


async def test_two_services_for_one_protocol() -> None:
    with pytest.raises(ValueError, match="served already"):
        async with open_node(MemoryNetwork(), "a", services=[Scripted(), Scripted()]):
            pass


# --- a host that cannot start -----------------------------------------------------------------------------------------


class Store(MemoryPeerstore):
    """Counts how often it is closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


async def test_a_listen_address_that_is_taken() -> None:
    network = MemoryNetwork()
    async with open_node(network, "a") as a:
        with pytest.raises(TransportError, match="in use"):
            async with open_node(network, "b", listen=["/memory/0", str(a.listen_addrs()[0])]):
                raise AssertionError("not reached")
        assert list(network.listening) == list(a.listen_addrs())


@pytest.mark.parametrize("fails", ["security", "listen", None])
async def test_the_peerstore_is_closed_with_the_host_however_it_ends(fails) -> None:
    store = Store()

    def security(key: object, muxers: object) -> Noise:
        if fails == "security":
            raise ValueError("not with this key")
        return Noise(seeded_key("x"), [])

    opening = open_host(
        key=seeded_key("x"),
        listen=["/ip4/127.0.0.1/udp/0/quic-v1"] if fails == "listen" else [],
        services=[],
        transports=[],
        security=[security],
        muxers=[Yamux()],
        peerstore=store,
        resolver=DnsResolver(),
        gater=Gater(),
        config=HostConfig(),
    )
    try:
        async with opening:
            assert fails is None and store.closed == 0
    except (ValueError, TransportError):
        assert fails is not None
    assert store.closed == 1


def test_times_must_be_possible() -> None:
    with pytest.raises(ValueError, match="close_grace"):
        HostConfig(close_grace=-1)
    with pytest.raises(ValueError, match="timeouts"):
        SwarmConfig(dial_timeout=0)


async def test_addresses_are_checked_before_anything_is_bound() -> None:
    network = MemoryNetwork()
    with pytest.raises(ValueError, match="nonsense"):
        async with open_node(network, "a", listen=["nonsense"]):
            pass
    assert not network.listening
