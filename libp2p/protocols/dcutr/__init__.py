"""Hole punching (DCUtR): from a connection through a relay to a direct one.

:class:`Dcutr` is a service without methods: once it runs beside a :class:`~libp2p.protocols.relay.RelayClient`, peers
that connect through a relay are connected directly wherever the NATs on the way allow it, and
:class:`~libp2p.events.HolePunchEnded` tells what became of it.

Source: libp2p/specs relay/DCUtR.
"""

from ._service import DCUTR, Dcutr, DcutrConfig

__all__ = ["DCUTR", "Dcutr", "DcutrConfig"]
