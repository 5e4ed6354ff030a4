"""Where the layers are put together: opening connections and servers."""

from heartline.endpoints._open import open_connection, open_server, serve
from heartline.endpoints._settings import ConnectionSettings, ServerSettings

__all__ = ["ConnectionSettings", "ServerSettings", "open_connection", "open_server", "serve"]
