"""The server: listeners, the table of connections, and what goes to many of them."""

from heartline.server._acceptor import Acceptor
from heartline.server._admission import Authenticate
from heartline.server._dialects import (
    HTTP_METHODS,
    NATIVE,
    TLS_HANDSHAKE,
    Dialect,
    Visit,
    answer_http,
    answer_tls,
)
from heartline.server._server import Broadcast, Server, ServerStatistics, attached, make_server
from heartline.server._table import Table

__all__ = [
    "HTTP_METHODS",
    "NATIVE",
    "TLS_HANDSHAKE",
    "Acceptor",
    "Authenticate",
    "Broadcast",
    "Dialect",
    "Server",
    "ServerStatistics",
    "Table",
    "Visit",
    "answer_http",
    "answer_tls",
    "attached",
    "make_server",
]
