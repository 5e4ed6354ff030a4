"""``unix:///absolute/path``: Unix sockets as plain :class:`trio.SocketStream`."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import ExitStack

import trio

from heartline.errors import ConfigurationError
from heartline.transports._context import TransportContext
from heartline.transports._listener import Listener
from heartline.transports._url import refuse_tls, split_scheme

__all__ = ["open_listeners", "open_stream"]

MAX_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of a path: ``sun_path`` of the system's ``sockaddr_un``, less its closing NUL."""

MODE = 0o600
"""Only the owner may connect; to let others in, change the permissions of the file on purpose."""


def parse_path(url: str) -> str:
    """The path of a Unix URL: all that follows ``unix://``, taken literally."""
    _, path = split_scheme(url)
    if not path.startswith("/"):
        raise ConfigurationError(f"url: {url!r} needs an absolute path; write unix:///run/app.sock")
    if path.endswith("/") or "\0" in path:
        raise ConfigurationError(f"url: {url!r} does not name a file; write unix:///run/app.sock")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"url: {url!r} has a path that is no file name: {error.reason}") from None
    if size > MAX_PATH:
        raise ConfigurationError(
            f"url: {url!r} has a path of {size} bytes; this system allows {MAX_PATH} for a Unix socket"
        )
    return path


async def open_stream(url: str, context: TransportContext) -> trio.SocketStream:
    """Connect to ``unix:///path``."""
    refuse_tls(url, context.tls)
    stream = await trio.open_unix_socket(parse_path(url))
    try:
        stream.socket.getpeername()
    except OSError:
        # With a full backlog a non-blocking connect fails with EAGAIN, which looks like "in progress" to
        # Trio.
        stream.socket.close()
        raise BlockingIOError(errno.EAGAIN, "the listener's backlog is full") from None
    return stream


async def open_listeners(url: str, context: TransportContext) -> list[Listener]:
    """Listen on ``unix:///path``, in place of a socket file that a dead process left behind."""
    refuse_tls(url, context.tls)
    path = parse_path(url)
    await trio.lowlevel.checkpoint()
    return [Listener(_UnixListener(path, context.options.backlog), url)]


class _UnixListener(trio.abc.Listener[trio.SocketStream]):
    """A socket listener that removes its file when it closes."""

    def __init__(self, path: str, backlog: int) -> None:
        self._path = path
        self._inner = trio.SocketListener(trio.socket.from_stdlib_socket(_bind(path, backlog)))
        self._file = _identity(path)

    async def accept(self) -> trio.SocketStream:
        return await self._inner.accept()

    async def aclose(self) -> None:
        # The file is removed first: while this socket still answers, no other process takes the file for
        # stale and puts its own in its place. If another file is there by now, it stays.
        if self._inner.socket.fileno() != -1 and _identity(self._path) == self._file:
            os.unlink(self._path)
        await self._inner.aclose()


def _bind(path: str, backlog: int) -> socket.socket:
    # None of this blocks, so it is done without a checkpoint: a start that is cancelled leaves nothing half
    # made.
    with ExitStack() as undo:
        listening = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        _remove_stale(path)
        listening.bind(path)
        undo.callback(os.unlink, path)
        # Between bind and listen nobody can connect, so nobody gets in before the permissions are set.
        os.chmod(path, MODE)
        listening.listen(backlog)
        undo.pop_all()
    return listening


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is not a socket is in the way", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # with a full backlog, which means that a server lives, this would block
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path) from None
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
