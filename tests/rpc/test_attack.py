"""What a peer can reach: the declared methods, and nothing else however the target is written."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

import heartline
from heartline import service
from heartline.rpc._wire import CALL_HEAD
from heartline.wire import Frame, FrameType
from tests.rpc.helpers import CBOR, QUIET, RawPeer, raw_client, run, settle

touched: list[str] = []


class Mixin:
    def inherited(self) -> None:
        touched.append("inherited")


@service
class Vault(Mixin):
    secret = "s3cret"

    def __init__(self) -> None:
        self.door = lambda: touched.append("door")

    def __getattr__(self, name: str) -> Any:
        touched.append(name)
        return lambda: touched.append(name)

    def __call__(self) -> None:
        touched.append("__call__")

    def open(self) -> str:
        return "opened"

    def _unlock(self) -> None:
        touched.append("_unlock")

    def __lock(self) -> None:
        touched.append("__lock")

    @property
    def prop(self) -> Any:
        touched.append("prop")
        return lambda: touched.append("prop called")

    @classmethod
    def _of_class(cls) -> None:
        touched.append("of_class")

    @staticmethod
    def _static() -> None:
        touched.append("static")


NAMES = [
    *("inherited", "secret", "door", "_unlock", "_Vault__lock", "__lock", "prop", "_of_class"),
    *("_static", "of_class", "static"),
    *("__init__", "__class__", "__call__", "__getattr__", "__dict__", "__reduce__", "__new__", "__doc__"),
    *("__heartline_service__", "__class__.__mro__", "open.__func__", "open.__globals__", "open()", "Open"),
    *("open ", " open", "open\0", "open.", ".open", "opeｎ", "mro", "anything", "", "*", "open;open"),
]
TARGETS = [
    *(f"Vault.{name}" for name in NAMES),
    *("", ".", "..", "open", "Vault", "Vault.", "vault.open", "Vault..open", "Vault/open"),
    *("Vault.open.open", "Va\u0000ult.open", "Vault.ope\u0301n", "Vault@.open", "Vault@1.open"),
    *("$push", "$push.", "$push.serve", "$push.__init__", "$.open", "$Vault.open"),
    *("Mixin.inherited", "object.__init__", "builtins.eval", "os.system"),
]
text = st.text() | st.sampled_from(NAMES) | st.sampled_from(TARGETS)
targets = (
    st.builds(lambda *parts: ".".join(parts).encode("utf-8", "surrogatepass"), text, text)
    | st.builds(lambda part: part.encode("utf-8", "surrogatepass"), text)
    | st.binary(max_size=40)
)
SERVED = {b"Vault.open", b"$push.subscribe"}


async def expect_unknown(peer: RawPeer, number: int, target: bytes) -> None:
    await peer.call(number, target)
    fault = await peer.receive_fault()
    assert fault["kind"] == "unknown", target


async def test_the_attack_list() -> None:
    touched.clear()
    async with (
        heartline.open_server("memory://", services=[Vault()], heartbeat=QUIET) as server,
        raw_client(server.urls[0]) as peer,
    ):
        for number, target in enumerate(TARGETS):
            await expect_unknown(peer, number, target.encode())
        await peer.call(1000, "Vault.open")
        assert await peer.receive_result() == "opened"
    assert touched == []


@given(target=targets.filter(lambda target: target not in SERVED))
@example(target=b"x" * 0xFFFF)
def test_arbitrary_targets(target: bytes) -> None:
    async def main() -> None:
        async with (
            heartline.open_server("memory://", services=[Vault()], heartbeat=QUIET) as server,
            raw_client(server.urls[0]) as peer,
        ):
            await expect_unknown(peer, 0, target)

    touched.clear()
    run(main)
    assert touched == []


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
bodies = st.binary(max_size=40) | values.map(lambda value: CBOR.encode(value, []))
calls = st.builds(
    lambda content_id, kind, target, body: CALL_HEAD.pack(content_id, kind, len(target), 0) + target + body,
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from([b"Vault.open", b"Vault.x"]),
    bodies,
)


@given(payload=st.binary(max_size=60) | calls, flags=st.sampled_from([0, 2]))
def test_a_malformed_call_costs_at_most_its_own_connection(payload: bytes, flags: int) -> None:
    """Whatever the payload, the peer is answered or closed as a breaker of the protocol; others go on."""

    async def main() -> None:
        async with (
            heartline.open_server("memory://", services=[Vault()], heartbeat=QUIET) as server,
            raw_client(server.urls[0]) as good,
            raw_client(server.urls[0]) as bad,
        ):
            before = dict(server.connections)
            await bad.send(Frame(FrameType.CALL, flags, 0, 7, payload))
            (answer,) = (await bad.events())[:1]
            if isinstance(answer, Frame):
                assert answer.type in (FrameType.RESULT, FrameType.FAULT)
                assert answer.id == 7
                assert dict(server.connections) == before
            else:
                assert answer.code == heartline.CloseCode.PROTOCOL_ERROR, answer
            await good.call(1, "Vault.open")
            assert await good.receive_result() == "opened"

    run(main)


NO_ARGUMENTS: dict[int, list[Any]] = {
    0: ["ab", b"ab", {"a": 1, "b": 2}, 7, None],
    1: [
        *([["a", "b"]], [[], []], [{"a": 1}, {}], ["ab", {}], {"a": 1, "b": 2}, "ab"),
        *([["a"], {"b": 1}, 5], [["a", "b"], {"a": 1}], [["a"], None], [], 7),
    ],
}
"""What is no arguments, by the kind that the head of the call says: without names, and with."""


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in NO_ARGUMENTS.items() for value in values]
)
async def test_arguments_are_a_list_and_a_map(kind: int, value: Any) -> None:
    @service
    class Pair:
        def keep(self, a: Any, b: Any) -> Any:
            touched.append("kept")

    touched.clear()
    async with (
        heartline.open_server("memory://", services=[Pair()], heartbeat=QUIET) as server,
        raw_client(server.urls[0]) as peer,
    ):
        payload = CALL_HEAD.pack(CBOR.content_id, kind, 9, 0) + b"Pair.keep" + CBOR.encode(value, [])
        await peer.send(Frame(FrameType.CALL, payload=payload))
        assert (await peer.receive_fault())["kind"] == "arguments"
    assert touched == []


async def test_answers_and_cancels_that_nobody_waits_for_are_ignored() -> None:
    async with (
        heartline.open_server("memory://", services=[Vault()], heartbeat=QUIET) as server,
        raw_client(server.urls[0]) as peer,
    ):
        await peer.result(5, "surprise")
        await peer.send(Frame(FrameType.FAULT, id=6, payload=b"junk"), Frame(FrameType.CANCEL, id=7))
        await peer.call(0, "Vault.open")
        assert await peer.receive_result() == "opened"


async def test_an_id_in_progress_is_not_called_again() -> None:
    @service
    class Slow:
        async def forever(self) -> None:
            await trio.sleep_forever()

    async with (
        heartline.open_server("memory://", services=[Slow()], heartbeat=QUIET) as server,
        raw_client(server.urls[0]) as peer,
    ):
        await peer.call(3, "Slow.forever")
        await settle()
        await peer.call(3, "Slow.forever")
        (goodbye,) = await peer.events()
        assert goodbye.code == heartline.CloseCode.PROTOCOL_ERROR
        assert "id 3" in goodbye.reason


async def test_nothing_of_the_callee_leaks(caplog: pytest.LogCaptureFixture) -> None:
    """The caller learns the error's class and text: no traceback, no file names, no values of variables."""

    @service
    class Leaky:
        def fail(self) -> None:
            password = "hunter2"
            raise RuntimeError("broken") from ValueError(password)

    with caplog.at_level(logging.CRITICAL):
        async with (
            heartline.open_server("memory://", services=[Leaky()], heartbeat=QUIET) as server,
            raw_client(server.urls[0]) as peer,
        ):
            await peer.call(0, "Leaky.fail")
            frame = await peer.receive()
    fault = CBOR.decode(frame.payload)
    assert (fault["kind"], fault["message"], fault["type_name"]) == ("raised", "broken", "RuntimeError")
    assert fault.keys() <= {"kind", "message", "type_name", "timeout"}
    for part in (b"hunter2", b"Traceback", b".py", b"Leaky"):
        assert part not in frame.payload
