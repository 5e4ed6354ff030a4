"""The proxy does to a link what it was told to."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.patience import PATIENCE

from ._proxy import Course, Fault, open_proxy

pytestmark = pytest.mark.slow

SENT = bytes(range(256)) * 1000


async def exchange(course: Course) -> tuple[bytes, bool, bytes]:
    """What comes of SENT, down the course; whether it ends in a reset; and what goes up after that."""
    up = bytearray()

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await stream.send_all(SENT)
            await stream.send_eof()
            async for data in stream:
                up.extend(data)
        except trio.BrokenResourceError:
            pass

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            async with open_proxy(f"tcp://127.0.0.1:{port}", lambda _: (Course(), course)) as proxy:
                down, reset = bytearray(), False
                async with await trio.open_tcp_stream(
                    "127.0.0.1", int(proxy.url.rsplit(":", 1)[1])
                ) as stream:
                    try:
                        async for data in stream:
                            down.extend(data)
                        await stream.send_all(b"still here")
                        await stream.send_eof()
                        while proxy.relays:
                            await trio.sleep(0.001)
                    except trio.BrokenResourceError:
                        reset = True
            nursery.cancel_scope.cancel()
    return bytes(down), reset, bytes(up)


async def test_smooth() -> None:
    assert await exchange(Course()) == (SENT, False, b"still here")


async def test_late_and_slow_bytes_all_arrive_and_take_their_time() -> None:
    began = trio.current_time()
    assert await exchange(Course(latency=0.05, jitter=0.05, bandwidth=1_000_000)) == (
        SENT,
        False,
        b"still here",
    )
    assert trio.current_time() - began >= 0.05 + len(SENT) / 1_000_000


@pytest.mark.parametrize("after", [0, 1, 70_000])
async def test_faults_come_behind_their_byte(after: int) -> None:
    assert await exchange(Course(fault=Fault.FIN, after=after)) == (SENT[:after], False, b"")
    assert await exchange(Course(fault=Fault.HALF_CLOSE, after=after)) == (SENT[:after], False, b"still here")
    down, reset, up = await exchange(Course(fault=Fault.RESET, after=after))
    assert (reset, up) == (True, b"")
    assert SENT[:after].startswith(down), "what waited to be read is thrown away"
