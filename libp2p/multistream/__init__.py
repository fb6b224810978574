"""multistream-select 1.0: agreeing on a protocol, one proposal at a time.

Specification: libp2p/specs connections/README.md and multistream-select 1.0.0.
"""

from ._machine import MULTISTREAM, Agreed, Dialer, Listener
from ._negotiate import negotiate_inbound, negotiate_outbound

__all__ = ["MULTISTREAM", "Agreed", "Dialer", "Listener", "negotiate_inbound", "negotiate_outbound"]
