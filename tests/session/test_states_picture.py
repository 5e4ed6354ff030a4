"""The picture of the states in the documentation is that of the table."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from docs import _generate_states as generator
from heartline.session import TRANSITIONS, Role, State, Step

SVG = "{http://www.w3.org/2000/svg}"


def texts() -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(generator.render()).iter(f"{SVG}text")]


def test_the_picture_in_the_documentation_is_up_to_date() -> None:
    assert generator.TARGET.read_text() == generator.render(), "run: python docs/_generate_states.py"


def test_every_state_and_every_row_of_the_table_is_drawn() -> None:
    shown = texts()
    assert {state.value for state in State} <= set(shown)
    rows = sum(
        1 if label.role else 2  # a label without a side stands for both
        for lines in generator.labels().values()
        for label in lines
    )
    assert rows == len(TRANSITIONS)
    drawn = [label.text for lines in generator.labels().values() for label in lines]
    assert sorted(drawn) == sorted(text for text in shown if text in drawn)


def test_a_new_row_changes_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    before = generator.render()
    monkeypatch.setitem(TRANSITIONS, (Role.CLIENT, State.GREETING, Step.SEND_GOAWAY), State.CLOSED)
    assert generator.render() != before
    assert texts().count("client: send GOAWAY") == 1
    monkeypatch.setitem(TRANSITIONS, (Role.CLIENT, State.LEAVING, Step.SEND_GOAWAY), State.NEW)
    with pytest.raises(KeyError):
        generator.render()
