"""What a lookup is made of, for simulators, crawlers and those who write a node of their own."""

from ._keyspace import BITS, common_prefix, point_of
from ._query import Query, QueryConfig

__all__ = ["BITS", "Query", "QueryConfig", "common_prefix", "point_of"]
