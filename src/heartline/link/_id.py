"""Ids that nobody chose: of connections, epochs, runs."""

from __future__ import annotations

import random

__all__ = ["make_id"]


def make_id(rng: random.Random) -> str:
    """16 hexadecimal digits: among a billion of them two agree once in forty times."""
    return f"{rng.getrandbits(64):016x}"
