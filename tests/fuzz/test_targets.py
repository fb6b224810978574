"""A breath of every fuzz target: its seeds, and what hypothesis makes of them."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target, cut


@functools.cache
def seeds_of(target: Target) -> list[bytes]:
    """Made once: some signatures come out differently every time."""
    return list(target.seeds())


targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


@targets
def test_seeds_are_digested(target: Target) -> None:
    assert seeds_of(target)
    for seed in [b"", *seeds_of(target)]:
        target.run(seed)


@targets
@settings(max_examples=20)
@given(data=st.data())
def test_changed_seeds_are_digested(target: Target, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds_of(target)))
    begin = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(begin, min(len(seed), begin + 20)))
    target.run(seed[:begin] + data.draw(st.binary(max_size=20)) + seed[end:])


@given(st.binary(max_size=30))
def test_what_is_cut_is_whole_together(data: bytes) -> None:
    wire, pieces = cut(data)
    assert b"".join(pieces) == wire == data[1:]
