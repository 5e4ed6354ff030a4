"""heartline: connections that live for days, on Trio."""

from heartline.connection import Backoff, Connection
from heartline.endpoints import open_connection, open_server, serve
from heartline.rpc import Retry, method, service
from heartline.session import Heartbeat
from heartline.wire import Limits
