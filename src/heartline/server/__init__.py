"""The server: listeners, the table of connections, and what goes to many of them."""

from heartline.server._acceptor import MAX_IDENTITY, Authenticate, accept_streams, serve_stream
from heartline.server._server import Broadcast, Server, ServerStatistics, make_server
from heartline.server._table import Table

__all__ = [
    "MAX_IDENTITY",
    "Authenticate",
    "Broadcast",
    "Server",
    "ServerStatistics",
    "Table",
    "accept_streams",
    "make_server",
    "serve_stream",
]
