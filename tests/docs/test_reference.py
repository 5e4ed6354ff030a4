"""The reference has every public name, and the site builds without a warning."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import heartline.connection
from heartline import _summaries, errors
from heartline.connection import _channels
from heartline.link import _goodbye, _id
from heartline.push import _journal, _keys, _served, _sqlite, _types
from heartline.rpc import _faults, _log, _service, _wire
from heartline.server import _acceptor
from heartline.session import (
    TRANSITIONS,
    Role,
    State,
    Step,
    assembly,
    heartbeat,
    lanes,
    messages,
    outbox,
    reports,
)
from heartline.wire import cbor, limits, segments, text
from heartline.wire.serializers import conversion, plain
from tests.docs.snippets import DOCS
from tests.public import PUBLIC_MODULES

DIRECTIVE = re.compile(
    r"^ *\.\. (?:auto|py:)(?:class|function|exception|data):: (?P<name>[\w.]+)", re.MULTILINE
)


def _documented() -> list[str]:
    pages = (DOCS / "reference").glob("*.md")
    return [name for page in pages for name in DIRECTIVE.findall(page.read_text())]


def _thing(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_is_documented(module: str) -> None:
    names = set(_documented())
    # A class or function that is exported in several places is documented in one of them.
    things = [thing for name in names if callable(thing := _thing(name))]
    for name in importlib.import_module(module).__all__:
        thing = _thing(f"{module}.{name}")
        assert f"{module}.{name}" in names or any(thing is other for other in things), (
            f"{module}.{name} is in __all__, but not in docs/reference"
        )


@pytest.mark.parametrize(
    "cls",
    [
        heartline.Channel,
        heartline.Connection,
        heartline.Message,
        heartline.Server,
        heartline.Events,
    ],
)
def test_what_users_hold_has_only_documented_names(cls: type) -> None:
    page = (DOCS / "reference" / "connection.md").read_text()
    (block,) = re.findall(rf"autoclass:: heartline\.{cls.__name__}\n(.*?)^\S", page, re.MULTILINE | re.DOTALL)
    (members,) = re.findall(r":members:(.*?)(?:\n\n|\Z)", block, re.DOTALL)
    told = set(re.findall(r"\w+", members)) | set(re.findall(r"py:attribute:: (\w+)", block))
    assert {name for name in dir(cls) if not name.startswith("_")} <= told


BOUNDS = {
    "smallest `frame_size` that a peer may announce": messages.SMALLEST_FRAME,
    "shortest heartbeat timeout, also for a peer; a third of it is the shortest interval": (
        heartbeat.SHORTEST_TIMEOUT
    ),
    "smallest `items` that a peer may announce": limits.LEAST_ITEMS,
    "fragment of a long message": outbox.FRAGMENT_SIZE,
    "long messages that this side has under way": outbox.STREAMS,
    "payload of a call whose arguments are not counted, and of one to a built-in method": limits.SMALL_CALL,
    "bytes that a message in part counts at least": assembly.LEAST_HALF,
    "small frames waiting for a peer that does not read, beyond `Limits.write_buffer`": outbox.STUCK_LIMIT,
    "bytes received that call for an ACK, at most": reports.ACK_SIZE,
    "channels, and calls that stream, that one side has open, whatever the peer allows": lanes.MOST_LANES,
    "token of a session": _acceptor.TOKEN_SIZE,
    "goodbye: for the peer to answer": _goodbye.GOODBYE_GRACE,
    "reason of a refusal or goodbye": messages.REASON_SIZE,
    "identity of a client": _id.MAX_IDENTITY,
    "lines of one sort that a log gets at once": _summaries.LINES,
    "time until it gets one more": _summaries.REFILL,
    "time until the first summary of such lines": _summaries.FIRST_PERIOD,
    "longest time between two summaries": _summaries.LAST_PERIOD,
    "text of a peer that is shown in an error": text.TEXT_SIZE,
    "name of a channel": _channels.NAME_SIZE,
    "name of a service, and of a method": _service.MAX_NAME,
    "text of an error that travels": _faults.MESSAGE_SIZE,
    "code of an `ApplicationError`": errors.CODE_SIZE,
    "data of an `ApplicationError`": _faults.DATA_SIZE,
    "time that a sync method takes before the log names it": _log.STALL,
    "longest timeout that travels with a call": _wire.LONGEST_TIMEOUT,
    "name of a topic": _types.MAX_TOPIC_NAME,
    "updates sent to a subscriber that it has not confirmed": _served.WINDOW_COUNT,
    "bytes of such updates (one is always sent)": _served.WINDOW_SIZE,
    "key of a publish": _keys.MAX_KEY,
    "updates that wait to be stored together; further publishers wait": _journal.QUEUE_COUNT,
    "bytes of such updates (beside one of any length)": _journal.QUEUE_SIZE,
    "wait for another program to leave a store's file": _sqlite.LOCK_PATIENCE,
    "items in one value that is sent": plain.MAX_ITEMS,
    "nesting of one value": cbor.MAX_DEPTH,
    "items of a set with one hash": conversion.ALIKE,
    "arrays in one value": segments.MAX_SEGMENTS,
    "dimensions of one array": segments.MAX_DIMENSIONS,
}


def test_bounds_are_those_of_the_code() -> None:
    table = re.findall(
        r"^\| (.*) \| ([\d,.]+)[^|]* \|$", (DOCS / "reference" / "settings.md").read_text(), re.MULTILINE
    )
    assert {what: float(value.replace(",", "")) for what, value in table} == BOUNDS


def test_states_are_those_of_the_code() -> None:
    page = (DOCS / "explanation" / "session-protocol.md").read_text()
    rows = re.findall(r"^\| (client|server|both) \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    told = {
        (role, State(state), Step(step)): State(following)
        for side, state, step, following in rows
        for role in (Role if side == "both" else [Role(side)])
    }
    goodbyes = {
        (role, state, step): State.LEAVING
        for role in Role
        for state in (State.OPEN, State.LEAVING)
        for step in (Step.SEND_GOAWAY, Step.RECEIVE_GOAWAY)
    }
    assert told | goodbyes == TRANSITIONS


def test_nothing_is_documented_twice() -> None:
    names = _documented()
    assert sorted(names) == sorted(set(names))


@pytest.mark.slow
def test_site_builds_without_a_warning(site: Path) -> None:
    # What a comment asks a later hand to fill in must not be seen by a reader as a hole.
    for page in site.rglob("*.html"):
        assert "&lt;!--" not in page.read_text()
