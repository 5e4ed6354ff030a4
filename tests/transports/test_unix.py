"""Unix sockets: the file comes, is private, and goes."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from heartline.errors import ConnectionFailed
from tests.opening import open_listeners, open_stream


def leave_stale(path: Path) -> None:
    """The socket file of a process that died."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


async def test_the_file_is_private_and_goes_with_the_listener(socket_dir: Path) -> None:
    path = socket_dir / "s"
    (listener,) = await open_listeners(f"unix://{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await listener.aclose()
    assert not path.exists()
    await listener.aclose()


async def test_a_stale_file_is_replaced(socket_dir: Path) -> None:
    path = socket_dir / "s"
    leave_stale(path)
    (listener,) = await open_listeners(f"unix://{path}")
    async with listener, await open_stream(f"unix://{path}"):
        await trio.aclose_forcefully(await listener.accept())


async def test_another_file_is_left_alone(socket_dir: Path) -> None:
    path = socket_dir / "precious"
    path.write_text("precious")
    with pytest.raises(ConnectionFailed, match="not a socket"):
        await open_listeners(f"unix://{path}")
    assert path.read_text() == "precious"


@pytest.mark.parametrize("backlog", [0, 100])
async def test_a_live_listener_is_left_alone(socket_dir: Path, backlog: int) -> None:
    """Even one whose backlog is full."""
    path = socket_dir / "s"
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(str(path))
        live.listen(backlog)
        client.connect(str(path))
        with pytest.raises(ConnectionFailed, match="in use"):
            await open_listeners(f"unix://{path}")
        assert path.exists()


async def test_a_full_backlog_is_no_connection(socket_dir: Path) -> None:
    """To a non-blocking connect it looks like one."""
    path = socket_dir / "s"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        with pytest.raises(ConnectionFailed, match="backlog is full"):
            await open_stream(f"unix://{path}")


async def test_a_successors_file_is_left_alone(socket_dir: Path) -> None:
    path = socket_dir / "s"
    (old,) = await open_listeners(f"unix://{path}")
    path.rename(socket_dir / "moved")
    (new,) = await open_listeners(f"unix://{path}")
    await old.aclose()
    assert path.exists()
    await new.aclose()
    assert not path.exists()


async def test_a_file_that_went_by_itself(socket_dir: Path) -> None:
    path = socket_dir / "s"
    (listener,) = await open_listeners(f"unix://{path}")
    path.unlink()
    await listener.aclose()


async def test_a_directory_that_is_not_there(socket_dir: Path) -> None:
    for opening in (open_listeners, open_stream):
        with pytest.raises(ConnectionFailed, match="No such file") as raised:
            await opening(f"unix://{socket_dir}/none/s")
        assert isinstance(raised.value.__cause__, FileNotFoundError)


async def test_a_failed_start_leaves_no_file(socket_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(*_: object) -> None:
        raise PermissionError(1, "not yours")

    monkeypatch.setattr(os, "chmod", chmod)
    with pytest.raises(ConnectionFailed, match="not yours"):
        await open_listeners(f"unix://{socket_dir}/s")
    assert not (socket_dir / "s").exists()
