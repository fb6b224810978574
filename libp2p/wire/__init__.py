"""Bytes on the wire: varints, length-delimited frames, multihashes, multibase text, binary addresses. Pure."""
