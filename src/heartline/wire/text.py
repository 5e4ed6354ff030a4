"""Text from elsewhere: what may be a name, and how the rest fits in a line of a log and in an error."""

from __future__ import annotations

from typing import TypeGuard

__all__ = ["is_name", "printable"]

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


def is_name(name: object, size: int) -> TypeGuard[str]:
    """Whether something can be the name of a thing: text of 1 to ``size`` printable characters."""
    return isinstance(name, str) and 0 < len(name) <= size and name.isprintable()
