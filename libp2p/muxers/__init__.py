"""Muxers: many streams over one secure stream."""
