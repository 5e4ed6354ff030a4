"""Ids that nobody chose: of connections, epochs, runs."""

from __future__ import annotations

import random

__all__ = ["MAX_IDENTITY", "make_id"]

MAX_IDENTITY = 256
"""Characters in an identity: any name or UUID; it stands in every receipt and log line."""


def make_id(rng: random.Random) -> str:
    """16 hexadecimal digits: among a billion of them two agree once in forty times."""
    return f"{rng.getrandbits(64):016x}"
