"""Key files: whole or not there, and nobody else's business."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from libp2p.crypto import key_file
from libp2p.crypto.key_file import KeyFileError, load, load_or_create, save
from libp2p.crypto.keys import KeyType, generate, unmarshal_private_key
from libp2p.errors import Libp2pError
from tests.crypto.vectors import VECTORS, Vector, private_key

posix_only = pytest.mark.skipif(os.name != "posix", reason="Unix modes")


def test_the_key_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = load_or_create(path)
    assert key.key_type is KeyType.ED25519
    assert load_or_create(str(path)) == load(path) == key
    assert unmarshal_private_key(path.read_bytes()) == key
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_other_types(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "key", KeyType.SECP256K1).key_type is KeyType.SECP256K1
    assert load_or_create(tmp_path / "key", KeyType.ECDSA).key_type is KeyType.SECP256K1


@pytest.mark.parametrize("vector", VECTORS.values(), ids=lambda vector: vector.key_type.name)
def test_v1_keys_are_saved_as_they_are(tmp_path: Path, vector: Vector) -> None:
    save(tmp_path / "key", private_key(vector.key_type))
    assert (tmp_path / "key").read_bytes() == vector.private
    assert load(tmp_path / "key") == private_key(vector.key_type)


def test_save_replaces(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for key in (generate(), generate()):
        save(path, key)
        assert load(path) == key
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@posix_only
def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        load_or_create(tmp_path / "created")
        save(tmp_path / "saved", generate())
    finally:
        os.umask(previous)
    for name in ("created", "saved"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@posix_only
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="can be written by others"):
        load_or_create(path)


@posix_only
def test_a_file_that_others_can_read_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = load_or_create(path)
    path.chmod(0o444)
    assert load(path) == key


@pytest.mark.parametrize("content", [b"", b"text", VECTORS[KeyType.ED25519].public, bytes(100_000)])
def test_a_file_that_holds_no_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="holds no private key") as caught:
        load_or_create(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, Libp2pError)
    assert path.read_bytes() == content


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "key", tmp_path):
        with pytest.raises(KeyFileError):
            load_or_create(path)
        with pytest.raises(KeyFileError, match="cannot be read"):
            load(path)
        with pytest.raises(KeyFileError, match="cannot be written"):
            save(path, generate())
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_leaves_the_old_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    old = load_or_create(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        save(path, generate())
    assert load(path) == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_of_two_that_start_at_once_the_first_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(load_or_create, [path] * 32))
    assert set(keys) == {load(path)}
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_key_that_appears_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    first = generate()

    def slow(key_type: KeyType) -> object:
        save(path, first)
        return generate(key_type)

    monkeypatch.setattr(key_file, "generate", slow)
    assert load_or_create(path) == first


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    key = load_or_create(tmp_path / "key")
    assert load(tmp_path / "key") == key
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_without_unix_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "_POSIX", False)
    path = tmp_path / "key"
    key = load_or_create(path)
    path.chmod(0o666)
    assert load(path) == key
