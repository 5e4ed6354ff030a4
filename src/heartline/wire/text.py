"""Makes text from a peer fit for a line of a log and for an error."""

from __future__ import annotations

__all__ = ["printable"]

TEXT_SIZE = 1024
"""Characters: as much as heartline itself sends of a reason or of an error's message."""


def printable(text: str, size: int = TEXT_SIZE) -> str:
    """Shorten a text, and escape what is not printable, such as newlines and a terminal's control sequences.

    A line stays a line, and no peer can forge another one or move a terminal's cursor.
    """
    if len(text) > size:
        text = text[: size - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
