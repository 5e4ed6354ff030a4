"""A ticker that misses nothing, although its line is cut in the middle.

A server publishes a price ten times a second. A subscriber follows it through a little TCP proxy, the *line*,
which goes dead for a second and comes back:

    server  <----  line  <----  subscriber

The subscriber's connection comes back by itself and resumes its session: what was published meanwhile comes
late, but it comes, once and in order. Were the line dead for longer than the session lives, the subscription
would go on after the last update it has got: every update of a topic has an offset, and the server keeps a
history of them. The program ends with 0 if nothing was missed.
"""

import argparse
import os
import random
import sys
from functools import partial
from urllib.parse import urlsplit

import trio

import heartline

EXAMPLES = """\
examples:
  python examples/ticker.py                # thirty ticks, of which ten come late
  python examples/ticker.py | grep -- ---  # only what happens to the line
"""

TICKS = 30
INTERVAL = 0.1  # seconds between ticks
CUT, MENDED = 10, 20  # the ticks after which the line goes dead, and comes back
HISTORY = heartline.History(count=100)  # updates kept for those who were away: ten seconds of ticks
LIMITS = heartline.Limits(resume_window=60)  # seconds for which a session outlives its link


class Line:
    """A TCP proxy that can be cut: it then drops its connections, and every new one."""

    def __init__(self, port: int) -> None:
        self._port = port  # of the server behind it
        self._dead = False
        self._scopes: set[trio.CancelScope] = set()

    def cut(self) -> None:
        """Drop everything, with no goodbye: neither end is told why."""
        self._dead = True
        for scope in self._scopes:
            scope.cancel()

    def mend(self) -> None:
        """Let new connections through."""
        self._dead = False

    async def carry(self, near: trio.SocketStream) -> None:
        """Carry one connection, both ways, until one end closes it or the line is cut."""
        if self._dead:
            return  # whoever serves the listener closes the stream
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with await trio.open_tcp_stream("127.0.0.1", self._port) as far:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._copy, near, far, scope)
                        nursery.start_soon(self._copy, far, near, scope)
            finally:
                self._scopes.remove(scope)

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass  # one end is gone, which ends the connection like its proper end
        scope.cancel()


async def publish(server: heartline.Server, line: Line) -> None:
    """Publish all ticks, and have an accident with the line on the way."""
    price = 100.0
    for number in range(1, TICKS + 1):
        price += random.uniform(-1, 1)
        await server.publish("price", {"price": price, "time": trio.current_time()})
        if number == CUT:
            line.cut()
            print(f"--- the line was cut after tick {number}", flush=True)
        elif number == MENDED:
            line.mend()
            print(f"--- the line was mended after tick {number}", flush=True)
        await trio.sleep(INTERVAL)


async def follow(connection: heartline.Connection) -> list[int]:
    """Print every tick; returns their offsets, in the order in which they came."""
    offsets: list[int] = []
    async with connection.subscribe("price", since="oldest") as updates:
        async for update in updates:
            if isinstance(update, heartline.Gap):
                print(f"--- ticks {update.first} to {update.last} are gone for good", flush=True)
                continue
            age = trio.current_time() - update.value["time"]
            late = f"  ({age:.1f} s late)" if age > INTERVAL else ""
            print(f"tick {update.offset:2}: {update.value['price']:6.2f}{late}", flush=True)
            offsets.append(update.offset)
            if update.offset == TICKS:
                break
    return offsets


async def tell_events(connection: heartline.Connection) -> None:
    """Print what happens to the connection."""
    async for event in connection.events():
        match event:
            case heartline.Lost(reason=heartline.ConnectionLost() as reason):
                print(f"--- the subscriber lost its link: {reason}", flush=True)
            case heartline.Reconnected():
                print("--- the subscriber has a new link, and goes on where it was", flush=True)


async def run() -> bool:
    """Everything at once, in one process; tells whether every tick came, once and in order."""
    async with heartline.open_server("tcp://127.0.0.1:0", history=HISTORY) as server:
        async with trio.open_nursery() as nursery:
            line = Line(urlsplit(server.urls[0]).port or 0)
            listeners = await nursery.start(partial(trio.serve_tcp, line.carry, 0, host="127.0.0.1"))
            url = f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            # The default backoff is made for outages of hours; a demonstration has less patience.
            backoff = heartline.Backoff(initial=0.1, maximum=0.3)
            async with heartline.open_connection(url, reconnect=backoff, limits=LIMITS) as connection:
                nursery.start_soon(tell_events, connection)
                nursery.start_soon(publish, server, line)
                offsets = await follow(connection)
            nursery.cancel_scope.cancel()
    missed = sorted(set(range(1, TICKS + 1)) - set(offsets))
    print(f"{TICKS} ticks published, {len(offsets)} received, missed: {missed or 'none'}", flush=True)
    return offsets == list(range(1, TICKS + 1))


def main() -> int:
    """Run it; returns the exit code: 0 if nothing was missed."""
    argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    code = 0
    try:
        code = 0 if trio.run(run) else 1
    except* KeyboardInterrupt:
        code = 130
        print("interrupted", file=sys.stderr)
    except* BrokenPipeError:
        code = 141  # as a shell has it for SIGPIPE: whoever read the output has seen enough
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    sys.exit(main())
