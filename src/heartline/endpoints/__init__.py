"""Where the layers are put together: opening connections and servers."""

from heartline.endpoints._open import open_connection, open_server, serve

__all__ = ["open_connection", "open_server", "serve"]
