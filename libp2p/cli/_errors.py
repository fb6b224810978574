"""What ends a command before its time."""

from __future__ import annotations

from ..errors import Libp2pError


class Failure(Libp2pError):
    """The command could not do what it was asked for; the text says why."""


class Interrupted(Exception):
    """A signal ended the command.

    Attributes:
        status: the exit status that says so.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
