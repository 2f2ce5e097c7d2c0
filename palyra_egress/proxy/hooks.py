"""Which hooks the guard decides at, which only tell, and which no other addon gets to see.

A hook that stands in neither table is refused: a new version of the library may have brought it.
"""

from typing import Final

# Hooks the guard decides at. The value is the guard's method of the same name.
DECIDED: Final = frozenset(
    {
        "client_connected",
        "client_disconnected",
        "next_layer",
        "http_connect",
        "http_connected",
        "http_connect_error",
        "tls_clienthello",
        "tls_start_client",
        "tls_start_server",
        "tls_established_client",
        "tls_failed_server",
        "requestheaders",
        "request",
        "responseheaders",
        "response",
        "error",
        "socks_shown",
        "tunnel_asked",
    }
)
# Hooks that only tell; nothing is decided there and nothing can be changed.
TOLD: Final = frozenset(
    {
        "server_connect",
        "server_connected",
        "server_connect_error",
        "server_disconnected",
        "tls_established_server",
        "tls_failed_client",
    }
)

# Hooks that no foreign addon gets to see: which protocol is spoken, and with which TLS, is ours
# alone; mitmproxy's own addons would change the layer stack while they merely propose. Nor are the
# credentials of a SOCKS client anybody else's.
OURS_ALONE: Final = frozenset(
    {
        "next_layer",
        "tls_clienthello",
        "tls_start_client",
        "tls_start_server",
        "socks_shown",
        "tunnel_asked",
    }
)
