"""Transports: ways to reach addresses."""
