"""What the programs have in common."""

from __future__ import annotations

import json
import sys
from typing import Any

import trio

from heartline import Backoff, Heartbeat, Limits

QUICK = Heartbeat(interval=0.1, timeout=0.4)
"""A half-open link is found soon. Where a busy machine makes it find others too, that is one loss more."""

SOON = Backoff(initial=0.01, maximum=0.05)


def limits(resume_window: float = 60.0) -> Limits:
    """The limits of both sides: a handshake that was lost is tried again soon."""
    return Limits(handshake_timeout=1.0, resume_window=resume_window)


def heartbeat(given: dict[str, Any]) -> Heartbeat:
    """A patient one where a test wants no losses but its own."""
    return Heartbeat() if given.get("patient") else QUICK


def settings() -> Any:
    """What the program was started with."""
    return json.loads(sys.argv[1])


def say(**what: Any) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def wait_end() -> None:
    """Wait until the parent closes stdin: it has seen enough, or has ended."""
    stdin = trio.lowlevel.FdStream(0)
    while await stdin.receive_some():
        pass
