"""Signed things that outlive a connection: envelopes and the records in them."""
