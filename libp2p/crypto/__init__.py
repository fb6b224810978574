"""Identity keys: the four key types of libp2p, their serialized form, and key files."""
