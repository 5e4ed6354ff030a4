"""The server: listeners, the table of connections, and what goes to many of them."""

from heartline.server._acceptor import MAX_IDENTITY, accept_streams, serve_stream
from heartline.server._server import Authenticate, Broadcast, Server, ServerStatistics, WaitFor

__all__ = [
    "MAX_IDENTITY",
    "Authenticate",
    "Broadcast",
    "Server",
    "ServerStatistics",
    "WaitFor",
    "accept_streams",
    "serve_stream",
]
