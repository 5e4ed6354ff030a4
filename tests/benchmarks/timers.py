"""What the heartbeats of idle links cost: percent of one core, with and without writing the PINGs.

The timer and the sessions are the real ones; a link has no stream of its own, since 100,000 sockets would
measure the kernel. All of them join in the same instant, the worst case, and are watched in real time. Their
peers answer each PING at once. Where PINGs are written they go to one TCP connection, a system call each.
"""

from __future__ import annotations

import math
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable

import trio

from heartline.link import HeartbeatTimer
from heartline.session import Heartbeat, Role, Session
from heartline.wire import Limits
from tests.benchmarks._process import Child
from tests.benchmarks._report import Report, medians, ratios, say

PEERS = {"heartline": "serve_timer", "tasks": "serve_tasks"}
"""``tasks`` is the obvious way: a Trio task per link that sleeps until something can be due."""

LOADS = {"heartline": (10_000, 100_000), "tasks": (10_000,)}
"""Links. 100,000 tasks that wake together can be late by more than the timeout, and lose their links."""


def run(peers: list[str], *, quick: bool) -> Report:
    """Measure each way with each load: the timers alone, and with PINGs that are written."""
    seconds = 10.0 if quick else 20.0  # one or two intervals
    samples: dict[str, list[float]] = {}
    for peer in peers:
        for links in LOADS[peer]:
            for load, pings in ((f"{links}", False), (f"{links}+pings", True)):
                with Child(__name__, PEERS[peer], links, pings, seconds) as child:
                    share = child.receive(timeout=120 + seconds)
                samples.setdefault(f"{peer}@{load}", []).append(share)
                say(f"timers {peer:<10} {load:<13} {share:.2f} % of a core")
    results = medians(samples, 2)
    return Report(
        scenario="timers",
        unit="% of a core",
        results=results,
        ratios=ratios(results, more_is_better=False),
    )


class SilentLink:
    """As much of a link as the timer uses: idle, with a peer that answers."""

    __slots__ = ("_sock", "session", "watch")

    def __init__(self, sock: socket.socket | None) -> None:
        self.watch = -1
        self.session = _open_session()
        self._sock = sock

    def flush(self) -> None:
        """Write the PING that is due, or forget it, and hear its answer."""
        session = self.session
        reports = session._reports
        if reports.ping_due:
            now = session.pulse.spoke
            if self._sock is None:
                reports.void()
                session.pulse._heard = now  # past what a read costs: the timer alone is measured
            else:
                self._sock.send(b"".join(session.take(1 << 16, now)))
                session.pulse.heard = now

    def fail(self, error: Exception) -> None:
        """Nobody is ever silent here."""
        raise error

    lose = fail


def _open_session() -> Session:
    now = trio.current_time()
    ends = [Session(role, limits=Limits(), heartbeat=Heartbeat(), now=now) for role in Role]
    client, server = sorted(ends, key=lambda end: end.role is not Role.CLIENT)
    client.hello()
    server.receive(b"".join(client.take(1 << 16, now)), now)
    server.welcome("a peer")
    server.take(1 << 16, now)
    return server


def serve_timer(report: Callable[[object], None], links: int, pings: bool, seconds: float) -> None:
    """Report what the one timer of an endpoint costs."""

    async def watch(nursery: trio.Nursery, watched: list[SilentLink]) -> None:
        timer = HeartbeatTimer(Heartbeat(), random.SystemRandom())
        for link in watched:
            timer.add(link)  # type: ignore[arg-type]
        nursery.start_soon(timer.run)

    trio.run(_measure, report, links, pings, seconds, watch)


def serve_tasks(report: Callable[[object], None], links: int, pings: bool, seconds: float) -> None:
    """Report what a sleeping task per link costs."""

    async def live(link: SilentLink) -> None:
        while True:
            await trio.sleep_until(link.session.check(trio.current_time()))
            link.session.check(trio.current_time())
            link.flush()

    async def watch(nursery: trio.Nursery, watched: list[SilentLink]) -> None:
        for link in watched:
            nursery.start_soon(live, link)

    trio.run(_measure, report, links, pings, seconds, watch)


async def _measure(
    report: Callable[[object], None],
    links: int,
    pings: bool,
    seconds: float,
    watch: Callable[[trio.Nursery, list[SilentLink]], Awaitable[None]],
) -> None:
    sock = _sink() if pings else None
    watched = [SilentLink(sock) for _ in range(links)]
    now = trio.current_time()
    for link in watched:  # making them took some of their time
        link.session.pulse.heard = link.session.pulse.spoke = now
    async with trio.open_nursery() as nursery:
        await watch(nursery, watched)
        await trio.sleep(2.0)  # what is done once is not counted
        used, start = time.thread_time(), time.monotonic()
        await trio.sleep(seconds)
        share = 100 * (time.thread_time() - used) / (time.monotonic() - start)
        report(share)
        await trio.sleep(math.inf)


def _sink() -> socket.socket:
    """A TCP connection on loopback whose other end a thread reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()

    def read() -> None:
        while far.recv(1 << 20):
            pass

    threading.Thread(target=read, daemon=True).start()
    return near
