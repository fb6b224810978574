"""The addresses of this machine."""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
import sys

import pytest
import trio

from libp2p.host import _interfaces
from libp2p.host._interfaces import LIFE, Interfaces, interface_addresses


def test_addresses_of_this_machine_can_be_bound() -> None:
    found = interface_addresses()
    assert "127.0.0.1" in found
    assert len(set(found)) == len(found)
    for text in found:
        ip = ipaddress.ip_address(text)
        if not ip.is_link_local:  # those need their zone
            family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((text, 0))


def test_a_broken_list_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interfaces, "_MAX_ADDRESSES", 1)
    assert len(interface_addresses()) <= 1


@pytest.mark.parametrize("missing", ["library", "function"])
def test_falls_back_to_asking_the_routing_table(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def no_library(*args: object, **kwargs: object) -> object:
        if missing == "library":
            raise OSError("no C library here")
        return object()

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    for text in interface_addresses():
        ipaddress.ip_address(text)


def test_falls_back_when_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    class Function:
        argtypes: object = None
        restype: object = None

        def __call__(self, *args: object) -> int:
            return -1

    class Library:
        getifaddrs = Function()
        freeifaddrs = Function()

    monkeypatch.setattr(ctypes, "CDLL", lambda *args, **kwargs: Library())
    monkeypatch.setattr(_interfaces, "_by_routing", lambda: ["9.9.9.9"])
    assert interface_addresses() == ["9.9.9.9"]


def test_no_network_at_all_is_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> object:
        raise OSError("no such family")

    monkeypatch.setattr(socket, "socket", refuse)
    assert _interfaces._by_routing() == []


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_both_layouts_of_socket_addresses_are_read(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)

    def head(family: int) -> bytes:
        return struct.pack("=H", family) if platform == "linux" else bytes([28, family])

    four = ctypes.create_string_buffer(head(socket.AF_INET) + bytes(2) + bytes([9, 8, 7, 6]))
    six = ctypes.create_string_buffer(head(socket.AF_INET6) + bytes(6) + ipaddress.IPv6Address("2600::1").packed)
    other = ctypes.create_string_buffer(head(200) + bytes(30))
    assert _interfaces._text(ctypes.addressof(four)) == "9.8.7.6"
    assert _interfaces._text(ctypes.addressof(six)) == "2600::1"
    assert _interfaces._text(ctypes.addressof(other)) is None


async def test_an_answer_is_believed_for_a_while() -> None:
    answers = [["10.0.0.1"], ["10.0.0.2"], ["10.0.0.3"]]
    interfaces = Interfaces(lambda: answers.pop(0))
    assert interfaces.addresses() == ("10.0.0.1",)
    await trio.sleep(LIFE * 0.9)
    assert interfaces.addresses() == ("10.0.0.1",)
    await trio.sleep(LIFE * 0.2)
    assert interfaces.addresses() == ("10.0.0.2",)
    interfaces.forget()
    assert interfaces.addresses() == ("10.0.0.3",)
