"""Drive a negotiation over a stream."""

from __future__ import annotations

from collections.abc import Sequence

from trio.abc import Stream as ByteStream

from ..errors import NegotiationError, RemoteProtocolError, StreamReset
from ._machine import Agreed, Dialer, Listener

_READ_SIZE = 4096


async def negotiate_outbound(stream: ByteStream, protocols: Sequence[str], *, stage: str) -> Agreed:
    """Propose ``protocols`` in order. Cancelling leaves the stream in the middle: close it.

    Args:
        stage: what is being negotiated, for errors.

    Raises:
        NegotiationError: nothing in common, the peer broke the rules, or it closed the stream.
    """
    return await _drive(stream, Dialer(protocols), protocols, stage)


async def negotiate_inbound(stream: ByteStream, listener: Listener, *, stage: str) -> Agreed:
    """Answer proposals until one matches. ``listener`` may have taken some bytes already.

    Raises:
        NegotiationError: nothing matched, the peer broke the rules, or it closed the stream.
    """
    return await _drive(stream, listener, (), stage)


async def _drive(stream: ByteStream, machine: Dialer | Listener, offered: Sequence[str], stage: str) -> Agreed:
    agreed: Agreed | None = None
    try:
        while True:
            if output := machine.data_to_send():
                await stream.send_all(output)
            if agreed is not None:
                return agreed
            data = await stream.receive_some(_READ_SIZE)
            if not data:
                raise NegotiationError("the peer closed the stream while negotiating", offered=offered, stage=stage)
            try:
                agreed = machine.receive_data(data)
            except NegotiationError as exc:
                if output := machine.data_to_send():
                    await stream.send_all(output)
                exc.stage = stage
                raise
    except RemoteProtocolError as exc:
        raise NegotiationError(str(exc), offered=offered, stage=stage) from exc
    except StreamReset as exc:
        # go resets with 0x1001 where others answer `na`; js resets what is above its limits.
        raise NegotiationError(
            "the peer reset the stream while negotiating: it refuses, or what serves the protocol failed at once",
            offered=offered,
            stage=stage,
        ) from exc
