"""A host's private key in a file, so that it is the same peer after a restart.

The file holds the serialized private key (:meth:`PrivateKey.marshal`), nothing else. It appears whole or not at all,
and nobody but its owner can read it from the first moment.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from ..errors import DecodeError, Libp2pError
from . import _codec
from .keys import KeyType, PrivateKey, generate, unmarshal_private_key

# Windows has neither Unix modes nor directories that can be synced.
_POSIX = os.name == "posix"


class KeyFileError(Libp2pError):
    """A key file cannot be read or written, or must not be trusted.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"key file {self.path}: {self.reason}"


def load_or_create(path: str | os.PathLike[str], key_type: KeyType = KeyType.ED25519) -> PrivateKey:
    """Return the key in the file ``path``; when there is none, make a key and write it there first.

    When two processes start at once, both get the same key. Blocks on the disk.

    Args:
        path: the file; its directory must exist.
        key_type: what to make; a key that is there may be of any type.

    Raises:
        KeyFileError: as for :func:`load` and :func:`save`.
    """
    target = Path(path)
    if not target.exists():
        _write(target, generate(key_type), replace=False)
    return load(target)


def load(path: str | os.PathLike[str]) -> PrivateKey:
    """Return the key in the file ``path``. Blocks on the disk.

    Raises:
        KeyFileError: it cannot be read, holds no private key, or can be written by others than its owner, who could
            have put their key there. Being readable by others is accepted, because that is how many systems hand
            secrets to containers.
    """
    target = Path(path)
    try:
        with target.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            # One byte more than the longest key shows that a file is too long without reading all of it.
            data = file.read(_codec.MAX_LENGTH + 1)
    except OSError as exc:
        raise KeyFileError(target, f"cannot be read: {exc.strerror or exc}") from exc
    if _POSIX and mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyFileError(target, "can be written by others; restrict it with chmod 600 once its content is checked")
    try:
        return unmarshal_private_key(data)
    except DecodeError as exc:
        raise KeyFileError(target, f"holds no private key: {exc}") from exc


def save(path: str | os.PathLike[str], key: PrivateKey) -> None:
    """Write ``key`` to the file ``path``, readable only by its owner, replacing what is there. Blocks on the disk.

    After a crash the file holds the old key or the new one, never a part of either.

    Raises:
        KeyFileError: it cannot be written; what was there is still there.
    """
    _write(Path(path), key, replace=True)


def _write(target: Path, key: PrivateKey, *, replace: bool) -> None:
    try:
        # The mode of the file is 0600 from the start; only its name is temporary.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.marshal())
                file.flush()
                os.fsync(file.fileno())
            _publish(temporary, target, replace=replace)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(target.parent)
    except OSError as exc:
        raise KeyFileError(target, f"cannot be written: {exc.strerror or exc}") from exc


def _publish(temporary: Path, target: Path, *, replace: bool) -> None:
    if not replace:
        try:
            # A link, unlike a rename, does not overwrite: of two processes that start at once, the first one wins.
            target.hardlink_to(temporary)
        except FileExistsError:
            return
        except OSError:
            # Some file systems have no hard links.
            pass
        else:
            return
    temporary.replace(target)


def _sync_directory(directory: Path) -> None:
    if not _POSIX:
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
