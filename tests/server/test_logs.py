"""What a server's log says of beginnings: where it listens, and who was let in."""

from __future__ import annotations

import logging

import pytest

import heartline
from heartline import CloseCode, ConnectionClosed, Peer


async def test_where_it_listens_and_who_was_let_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heartline.server")

    def authenticate(peer: Peer) -> str:
        addresses.append(peer.address)
        return "ada"

    addresses: list[str] = []
    async with heartline.open_server(
        "tcp://127.0.0.1:0", "memory://here", authenticate=authenticate
    ) as server:
        async with heartline.open_connection(server.urls[0]):
            pass
    listening, let_in = caplog.records
    assert listening.getMessage() == f"listening on {server.urls[0]}, memory://here"
    assert let_in.getMessage() == f"ada at {addresses[0]}: let in"
    assert listening.levelno == let_in.levelno == logging.INFO


@pytest.mark.parametrize(
    ("code", "name"), [(CloseCode.NORMAL, ""), (CloseCode.KICKED, r" \(KICKED\)"), (77, r" \(code 77\)")]
)
async def test_a_goodbye_names_its_code_unless_it_is_normal(code: int, name: str) -> None:
    async with (
        heartline.open_server("memory://") as server,
        heartline.open_connection(server.urls[0], reconnect=None) as client,
    ):
        await server.close_connection(client.id, code=code, reason="enough")
        with pytest.raises(ConnectionClosed, match=rf"enough{name}$"):
            await client.receive()
