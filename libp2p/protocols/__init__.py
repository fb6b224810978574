"""Protocols that run on a host. Each is a service, or a function, and independent of its siblings."""
