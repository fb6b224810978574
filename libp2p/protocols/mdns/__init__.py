"""Peers of the local network, without anything set up: multicast DNS (libp2p/specs discovery/mdns)."""

from ._machine import MdnsConfig
from ._service import SOURCE, Mdns

__all__ = ["SOURCE", "Mdns", "MdnsConfig"]
