"""The host: a swarm, the protocols it serves, and its services."""

from ._config import HostConfig
from ._host import RunningHost
from ._open import open_host

__all__ = ["HostConfig", "RunningHost", "open_host"]
