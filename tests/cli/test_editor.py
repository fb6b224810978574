import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.cli._editor import MAX_LINE, LineEditor

LEFT, HOME, F1 = b"\x1b[D", b"\x1b[1~", b"\x1bOP"


@pytest.mark.parametrize(
    ("keys", "lines", "text"),
    [
        (b"hello", [], "hello"),
        (b"hello\r", ["hello"], ""),
        (b"one\ntwo\nthr", ["one", "two"], "thr"),
        (b"helol\x7f\x7flo", [], "hello"),
        (b"\x7f", [], ""),
        (b"all wrong\x15right", [], "right"),
        (b"keep drop  \x17", [], "keep "),
        (b"drop\x17", [], ""),
        (b"a" + LEFT + HOME + F1 + b"\x1bxb", [], "ab"),
        (b"a\x00\x01\tb", [], "ab"),
        ("é語".encode(), [], "é語"),
        (b"\xff", [], "\ufffd"),
        (b"a\x04b", [], "ab"),
    ],
)
def test_keys(keys: bytes, lines: list[str], text: str) -> None:
    editor = LineEditor()
    assert editor.feed(keys) == lines
    assert (editor.text, editor.ended) == (text, False)


def test_the_end() -> None:
    editor = LineEditor()
    assert editor.feed(b"last\r\x04more\r") == ["last"]
    assert editor.ended
    assert editor.feed(b"even more\r") == []


def test_a_line_has_an_end() -> None:
    editor = LineEditor()
    editor.feed(b"x" * (MAX_LINE + 10))
    assert len(editor.text) == MAX_LINE


@given(st.lists(st.sampled_from([b"a", b"\r", b"\x7f", b"\x17", LEFT, F1, "é".encode(), b" "])), st.data())
def test_it_does_not_matter_how_keys_arrive(keys: list[bytes], data: st.DataObject) -> None:
    joined = b"".join(keys)
    at = data.draw(st.integers(0, len(joined)))
    whole, split = LineEditor(), LineEditor()
    assert whole.feed(joined) == split.feed(joined[:at]) + split.feed(joined[at:])
    assert whole.text == split.text
