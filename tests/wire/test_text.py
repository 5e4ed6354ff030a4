"""What a peer says in words, in a line of a log or an error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heartline.wire.text import is_name, printable


@given(st.text(st.characters()), st.integers(1, 50))
def test_it_is_one_printable_line_of_bounded_length(text: str, size: int) -> None:
    shown = printable(text, size)
    assert shown.isprintable()
    assert len(shown) <= 10 * size
    shown.encode()


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=100))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_examples() -> None:
    assert printable("a\nb\x1b[1m\u202e\ud800") == "a\\nb\\x1b[1m\\u202e\\ud800"
    assert printable("abcdef", 4) == "abc…"


@given(st.text(max_size=12), st.integers(1, 12))
def test_a_name_is_short_and_printable(text: str, size: int) -> None:
    assert is_name(text, size) == (text != "" and len(text) <= size and printable(text) == text)
    assert not is_name(text.encode(errors="replace"), size)
