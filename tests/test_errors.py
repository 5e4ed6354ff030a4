"""The drawing of the tree of errors is the tree, and all of it is public."""

from __future__ import annotations

import inspect
import re

import pytest

from heartline import CloseCode, errors


def drawn(cls: type, lead: str = "", branch: str = "") -> list[str]:
    """The tree below ``cls`` as it should be drawn, without the descriptions."""
    others = [base.__name__ for base in cls.__bases__[1:]]
    lines = [f"{lead}{branch}{cls.__name__}" + (f" ({', '.join(others)})" if others else "")]
    lead += {"": "", "├── ": "│   ", "└── ": "    "}[branch]
    subclasses: list[type] = cls.__subclasses__()
    children = [child for child in subclasses if child.__module__ == errors.__name__]
    for child in children:
        lines += drawn(child, lead, "└── " if child is children[-1] else "├── ")
    return lines


def drawing() -> list[tuple[str, str]]:
    """The lines of the drawing in the docstring: what stands left, and the description."""
    block = inspect.cleandoc(errors.__doc__ or "").split("::\n\n", 1)[1].split("\n\n", 1)[0]
    parts = [re.split(r"(?<=[\w)])  +", line.removeprefix("    ")) for line in block.splitlines()]
    return [(part[0], " ".join(part[1:])) for part in parts]


def test_the_drawing_is_the_tree() -> None:
    assert [left for left, _ in drawing()] == drawn(errors.HeartlineError)


def test_each_error_without_children_is_described() -> None:
    for left, description in drawing():
        cls = getattr(errors, re.findall(r"\w+", left)[0])
        assert description or cls.__subclasses__(), left


def test_every_public_name_is_exported() -> None:
    public = [
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__ and not name.startswith("_")
    ]
    assert sorted(public) == errors.__all__


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_says_what_it_means(name: str) -> None:
    cls = getattr(errors, name)
    assert cls.__doc__
    assert name == "Outcome" or issubclass(cls, errors.HeartlineError)


def test_what_an_error_knows() -> None:
    refused = errors.ConnectionRefusedByPeer(4, "full", terminal=False)
    assert (refused.code, refused.reason, refused.terminal) == (4, "full", False)
    assert str(refused) == "the peer refused the connection: full (code 4)"
    refused = errors.ConnectionRefusedByPeer(CloseCode.OVERLOADED, "full", terminal=False)
    assert str(refused) == "the peer refused the connection: full (OVERLOADED)"
    closed = errors.ConnectionClosed("closed", code=1, by_peer=True)
    assert (closed.code, closed.by_peer) == (1, True)
    assert errors.RemoteProtocolError("broken").offset is None
    assert str(errors.RemoteProtocolError("broken", offset=7)) == "broken (at byte 7 of the stream)"
    timeout = errors.CallTimeout("slow", timeout=0.25, outcome=errors.Outcome.MAYBE_EXECUTED)
    assert (timeout.timeout, timeout.outcome) == (0.25, errors.Outcome.MAYBE_EXECUTED)
    assert str(timeout) == "slow (timeout: 250 ms)"
    remote = errors.RemoteError("Shop.buy raised KeyError", type_name="KeyError")
    assert (str(remote), remote.type_name) == ("Shop.buy raised KeyError", "KeyError")
    assert remote.outcome is errors.Outcome.COMPLETED
    gap = errors.HistoryGap("news", first=3, last=3)
    assert str(gap) == "topic 'news': update 3 is lost"
    assert not gap.anew
    assert str(errors.HistoryGap("news", first=3, last=7)) == "topic 'news': updates 3 to 7 are lost"
    gap = errors.HistoryGap("news", first=52, last=2, anew=True)
    assert str(gap) == "topic 'news' began again: what followed update 51 of its life before is lost"
