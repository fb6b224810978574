"""What this host says about itself.

It is the same for all peers, but for the address that each is seen at and for addresses that lead nowhere from there:
loopback ones, which only peers on this machine are told, and private ones, which are nobody's business on the internet.
So it is put together once for each of these three kinds, and again when it has changed.

A peer that is told twice keeps the signed record with the higher number. Whoever meets us on the internet and then next
door must not be stuck with what there is to know from outside: so the record that says more is the newer one. Whenever
one kind gets a new record, so does every kind that is told more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multiaddr import Multiaddr

from ...abc import Connection, Host
from ...addressing import Scope, is_relay, split_peer
from ...records.peer_record import MAX_ADDRS, PeerRecord
from ._addresses import KINDS, of_scopes, useful_scopes, without_loopback
from ._codec import MAX_SENT, OBSERVED_ROOM, IdentifyInfo, encode, encode_observed


class SelfDescription:
    """Makes the identify messages of a host. The signed records in them are made anew only when the addresses change.

    Args:
        agent_version: what this software calls itself.
        protocol_version: the family of protocols.
        clock: wall clock in seconds, from which the first sequence number is taken.
    """

    def __init__(self, *, agent_version: str, protocol_version: str, clock: Callable[[], float]) -> None:
        self._agent_version = agent_version
        self._protocol_version = protocol_version
        self._clock = clock
        self._seq = 0
        # For each kind of peers, by what is of use to them: addresses and protocols, and the message they make; and
        # addresses, and the signed record they make.
        self._made: dict[frozenset[Scope], tuple[tuple[object, object], bytes]] = {}
        self._records: dict[frozenset[Scope], tuple[tuple[Multiaddr, ...], bytes]] = {}

    def message_for(self, host: Host, connection: Connection) -> bytes:
        """The message for the peer at the other end of ``connection``."""
        remote, common = connection.remote_addr, self.common(host, connection)
        # Behind a relay nobody sees anything of the peer; js gives up identifying us for an address without a host.
        return common if is_relay(remote) else common + encode_observed(remote)

    def common(self, host: Host, connection: Connection) -> bytes:
        """The message without the observed address: the very same object for all peers of a kind, until it changes."""
        scopes = useful_scopes(connection.remote_addr)
        made_of = (tuple(host.addrs), tuple(host.protocols))
        made = self._made.get(scopes)
        if made is None or made[0] != made_of:
            made = self._made[scopes] = (made_of, self._make(host, scopes))
        return made[1]

    def _make(self, host: Host, scopes: frozenset[Scope]) -> bytes:
        addrs = [split_peer(addr)[0] for addr in host.addrs]
        self._sign(host, addrs)
        _, record = self._records.get(scopes, ((), None))
        return encode(
            IdentifyInfo(
                public_key=host.private_key.public_key.marshal(),
                listen_addrs=of_scopes(addrs, scopes),
                protocols=tuple(host.protocols),
                protocol_version=self._protocol_version,
                agent_version=self._agent_version,
                signed_peer_record=record,
            ),
            max_length=MAX_SENT - OBSERVED_ROOM,
        )

    def _sign(self, host: Host, addrs: Sequence[Multiaddr]) -> None:
        """Bring the records of all kinds up to date, in the order of how much they say."""
        fresh: tuple[tuple[Multiaddr, ...], bytes] | None = None
        for kind in KINDS:
            own = of_scopes(addrs, kind)
            # A record lists loopback addresses only when there are no others, and then it is for peers on this machine.
            listed = (without_loopback(own) or own)[:MAX_ADDRS]
            held = self._records.pop(kind, None)
            if fresh is not None and fresh[0] == listed:
                self._records[kind] = fresh
            elif fresh is None and held is not None and held[0] == listed:
                self._records[kind] = held
            elif listed:
                self._records[kind] = fresh = (listed, self._sealed(host, listed))

    def _sealed(self, host: Host, addrs: Sequence[Multiaddr]) -> bytes:
        # Time makes it grow across restarts (E8), the sum when the clock steps back or is coarse.
        self._seq = max(self._seq + 1, int(self._clock() * 1_000_000_000))
        return PeerRecord(peer=host.local_peer, seq=self._seq, addrs=tuple(addrs)).seal(host.private_key)
