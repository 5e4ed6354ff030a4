"""Answers from a peer that is broken or worse: the caller gets a value or a typed error, nobody is harmed.

The other direction, calls from such a peer, is in test_attack.py.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from heartline import service
from heartline.errors import CallError, CallTimeout, InvalidArguments, Outcome, RemoteError
from heartline.wire import Frame, FrameType, wrap
from tests.engine import core_of
from tests.rpc.helpers import CBOR, raw_server, run, settle

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
encoded = values.map(lambda value: CBOR.encode(value, []))
faults = st.fixed_dictionaries(
    {"kind": st.sampled_from(["raised", "timeout", "unknown", "new kind"]) | values, "message": values},
    optional={"type_name": values, "timeout": values, "extra": values},
).map(lambda fault: CBOR.encode(fault, []))
envelopes = st.builds(
    lambda inner, size, cut: wrap(b"\x01" + inner, [np.zeros(size)])[: -cut or None],
    encoded,
    st.integers(0, 4),
    st.integers(0, 9),
)
payloads = st.binary(max_size=50) | encoded.map(lambda data: b"\x01" + data) | encoded | faults | envelopes


@service
class S:
    async def m(self) -> int: ...  # type: ignore[empty-body]


@given(
    kind=st.sampled_from([FrameType.RESULT, FrameType.FAULT]),
    flags=st.sampled_from([0, 2]),
    payload=payloads,
    target=st.sampled_from([S, "S"]),
)
def test_any_answer_ends_its_call(kind: FrameType, flags: int, payload: bytes, target: Any) -> None:
    async def main() -> None:
        async with raw_server() as (client, peer), trio.open_nursery() as nursery:
            ends: list[Any] = []

            async def call() -> None:
                try:
                    ends.append(await client.service(target).m())
                except CallError as error:
                    ends.append(error)

            nursery.start_soon(call)
            first = await peer.receive()
            other: list[Any] = []

            async def call_another() -> None:
                other.append(await client.service("S").other())

            nursery.start_soon(call_another)
            second = await peer.receive()
            await peer.send(Frame(kind, flags, 0, first.id, payload))
            await settle()
            assert len(ends) == 1
            assert isinstance(ends[0], CallError) or target == "S" or type(ends[0]) is int
            await peer.result(second.id, "fine")
            await settle()
            assert other == ["fine"]
            assert core_of(client).idle

    run(main)


async def answer(kind: FrameType, payload: bytes, flags: int = 0) -> Any:
    """What a call gives that is answered so."""
    results: list[Any] = []
    async with raw_server() as (client, peer), trio.open_nursery() as nursery:

        async def call() -> None:
            try:
                results.append(await client.service("S").m())
            except Exception as error:
                results.append(error)

        nursery.start_soon(call)
        frame = await peer.receive()
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.send(Frame(kind, flags, 0, frame.id, payload))
        await settle()
    return results[0]


@pytest.mark.parametrize(
    ("payload", "flags", "message"),
    [
        (b"", 0, "the payload ends where its value should begin"),
        (b"\x01", 0, "cannot decode CBOR"),
        (b"\x01\xff", 0, "cannot decode CBOR"),
        (b"\x4d\x00", 0, "cannot be decoded: serializer 77 is not known; registered: "),
        (b"\x01\x00", 2, "malformed envelope"),
    ],
)
async def test_a_result_that_cannot_be_decoded(payload: bytes, flags: int, message: str) -> None:
    error = await answer(FrameType.RESULT, payload, flags)
    assert type(error) is InvalidArguments
    assert error.outcome is Outcome.COMPLETED
    assert message in str(error)


@pytest.mark.parametrize("fault", [b"", b"\x01", {"kind": "raised"}, {"kind": 1, "message": ""}, []])
async def test_a_fault_that_is_none(fault: Any) -> None:
    error = await answer(FrameType.FAULT, fault if isinstance(fault, bytes) else CBOR.encode(fault, []))
    assert type(error) is RemoteError
    assert error.type_name == "RemoteProtocolError"
    assert "malformed FAULT" in str(error)


async def test_a_fault_of_a_kind_that_a_later_version_may_have() -> None:
    fault = {"kind": "quota", "message": "come back later", "retry_after": 5}
    error = await answer(FrameType.FAULT, CBOR.encode(fault, []))
    assert type(error) is RemoteError
    assert str(error).endswith(" raised quota: come back later")
    assert isinstance(error, CallError)


async def test_a_timeout_fault_says_whose_timeout_it_was() -> None:
    fault = {"kind": "timeout", "message": "too late", "timeout": 1.5}
    error = await answer(FrameType.FAULT, CBOR.encode(fault, []))
    assert type(error) is CallTimeout
    assert str(error) == "S.m: too late (timeout: 1500 ms)"
