"""A client's request to upgrade HTTP to a WebSocket, as a server keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wsproto.events import Request


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """``path`` with its query; ``headers`` by names in lower case."""

    path: str
    headers: Mapping[str, str]

    @property
    def origin(self) -> str | None:
        """The site whose page asks. Only browsers send it, and a page cannot forge it."""
        return self.headers.get("origin")


def read_request(event: Request) -> UpgradeRequest:
    """Return the path and headers of a request, including the headers that wsproto has taken out."""
    headers = {"host": event.host}
    for taken, values in (
        ("sec-websocket-protocol", event.subprotocols),
        ("sec-websocket-extensions", event.extensions),
    ):
        if values:
            headers[taken] = ", ".join(map(str, values))
    for name, value in event.extra_headers:
        _add(headers, name.decode("ascii"), value.decode("latin-1"))
    return UpgradeRequest(event.target, headers)


def _add(headers: dict[str, str], name: str, value: str) -> None:
    # Joined like this, two origins are neither of them: such a request matches none that is allowed.
    headers[name] = f"{headers[name]}, {value}" if name in headers else value
