"""``libp2p key`` and ``libp2p id``."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from libp2p.crypto.key_file import load
from libp2p.crypto.keys import unmarshal_public_key
from libp2p.peer_id import PeerId
from tests.cli.program import Result

Call = Callable[..., Result]

PEER = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
HASHED = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.mark.parametrize("kind", ["ed25519", "secp256k1", "ecdsa", "rsa"])
def test_a_new_key(call: Call, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "key"
    result = call("key", "new", str(file), "--type", kind, "--json")
    peer = str(PeerId.from_key(load(file).public_key))
    assert (result.status, result.record) == (0, {"peer": peer, "type": kind, "file": str(file)})
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_is_not_replaced_unless_forced(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "key"
    first = call("key", "new", str(file)).out
    held = file.read_bytes()
    result = call("key", "new", str(file))
    assert result.status == 2
    assert "--force replaces it" in result.err
    assert file.read_bytes() == held
    assert call("key", "new", str(file), "--force").out != first
    assert file.read_bytes() != held


def test_showing_a_key(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "key"
    (peer,) = call("key", "new", str(file)).out
    shown = call("key", "show", str(file), "--json").record
    key = load(file)
    assert shown["peer"] == peer
    assert PeerId.parse(shown["cid"]) == PeerId.from_key(key.public_key)
    assert unmarshal_public_key(base64.b64decode(shown["public_key"])) == key.public_key
    assert call("id", "--key", str(file), "--json").record == shown
    assert key.marshal().hex() not in str(shown)


def test_a_file_that_is_no_key(call: Call, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("not a key")
    (tmp_path / "key").chmod(0o600)
    for arguments in (["key", "show", str(tmp_path / "key")], ["listen", "--key", str(tmp_path / "gone")]):
        result = call(*arguments, "--json")
        assert result.status == 2
        assert result.record["error"]["type"] == "KeyFileError"
        assert result.err.startswith("error: key file ")


def test_a_place_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    result = call("key", "new", str(tmp_path / "no" / "such" / "folder"))
    assert (result.status, result.out) == (2, [])
    assert "cannot be written" in result.err


@pytest.mark.parametrize("form", [PEER, PeerId.parse(PEER).to_cid(), f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"])
def test_the_forms_of_a_peer_id(call: Call, form: str) -> None:
    shown = call("id", form, "--json").record
    assert shown["peer"] == PEER
    assert shown["type"] == "ed25519"


def test_an_id_that_is_only_a_hash(call: Call) -> None:
    result = call("id", HASHED)
    assert result.status == 0
    assert result.out[0].split() == ["peer", HASHED]
    assert result.out[-1].split() == ["public", "key", "-"]


def test_an_id_that_holds_no_key(call: Call) -> None:
    nobody = PeerId.from_bytes(b"\x00\x03abc")
    assert call("id", str(nobody), "--json").record["public_key"] is None


def test_an_address_without_an_id(call: Call) -> None:
    result = call("id", "/ip4/192.0.2.1/tcp/4001")
    assert result.status == 2
    assert "has no /p2p/" in result.err
