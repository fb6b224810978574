"""How the C library treats memory that is freed and wanted again at once."""

from __future__ import annotations

KEPT = 4 * 1024 * 1024
"""Bytes: what is freed below twice this is kept for the next allocation."""


def keep_freed_memory() -> None:
    """Let freed memory stay with the process where it would otherwise go back and forth.

    Every received record becomes a ``bytes`` of up to 64 KiB that dies soon. By default glibc returns the top of the
    heap to the kernel as soon as 128 KiB of it are free, so each record would be paged in anew, which costs a third as
    much as decrypting it. Both its thresholds follow the largest block that was ever freed (mallopt(3),
    ``M_MMAP_THRESHOLD``), so one such block, never touched, settles it. Elsewhere this does nothing.
    """
    bytes(KEPT)
