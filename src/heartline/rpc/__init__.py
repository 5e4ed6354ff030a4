"""Remote calls: services, typed and dynamic proxies, deadlines, cancellation and retries."""

from heartline.rpc._calls import Calls, waiting_for_this
from heartline.rpc._faults import NotBegun
from heartline.rpc._hooked import hook
from heartline.rpc._proxy import Proxy, RemoteMethod, remote
from heartline.rpc._retry import Retry
from heartline.rpc._service import method, service
from heartline.rpc._table import ServiceTable

__all__ = [
    "Calls",
    "NotBegun",
    "Proxy",
    "RemoteMethod",
    "Retry",
    "ServiceTable",
    "hook",
    "method",
    "remote",
    "service",
    "waiting_for_this",
]
