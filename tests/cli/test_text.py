import pytest

from libp2p.cli._text import clean, from_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", "hello"),
        ("ünïcödé 語", "ünïcödé 語"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("one\ntwo\r", "one\\ntwo\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edcba", "abc\\u202edcba"),
        ("\U0001f469\u200d\U0001f680\n", "\U0001f469\u200d\U0001f680\\n"),
        ("", ""),
    ],
)
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_bytes_that_are_no_text() -> None:
    assert from_bytes("é".encode()) == "é"
    assert from_bytes(b"\xff") is None
