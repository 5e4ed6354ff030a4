"""What clients did and got, held against what their server noted."""

from __future__ import annotations

from typing import Any


def check(result: dict[str, Any], notes: list[str]) -> None:
    """Nothing of this client was lost or doubled, or came out of order."""
    mine = set(result["called"])
    assert sorted(result["called"]) == sorted(entry for entry in notes if entry in mine), "each call once"
    assert result["came_back"] == result["sent"], "the messages on a channel"
    assert result["updates"] == notes[: len(result["updates"])], "the updates of a topic"
    assert result["called"][-1] in result["updates"]
    assert result["resumed"] == result["links"] - 1, "it is the same session"
