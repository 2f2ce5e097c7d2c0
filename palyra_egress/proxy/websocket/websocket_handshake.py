"""The two heads that begin a WebSocket, checked before anything is believed of them. Pure.

A request that asks to be upgraded is a WebSocket's in every particular, or it is refused: nothing
else is carried behind HTTP. What is offered to the server is the version, the worker's key and its
subprotocols; extensions are taken out of the offer, so that every message is read as it was sent.
An answer opens the socket only if it is what RFC 6455 says for exactly this offer.
Source: RFC 6455 sections 4.1, 4.2 and 11.3.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mitmproxy import http
from wsproto.handshake import WEBSOCKET_VERSION
from wsproto.utilities import generate_accept_token

from palyra_egress.reasons import Reason

WEBSOCKET: Final = "websocket"
KEY_BYTES: Final = 16
MAX_PROTOCOLS: Final = 32
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_NEVER_WITH_IT: Final = ("content-length", "transfer-encoding")


@dataclass(frozen=True, slots=True)
class WebSocketOffer:
    """What the worker asks its server for: its key, and subprotocols in its order."""

    key: str
    protocols: tuple[str, ...]

    @property
    def accept(self) -> str:
        """The only answer to this key."""
        return generate_accept_token(self.key.encode()).decode()


def asks_for_upgrade(headers: http.Headers) -> bool:
    return "upgrade" in headers


def read_offer(request: http.Request) -> WebSocketOffer | Reason:
    """The offer of a request that asks to be upgraded, or why it is refused."""
    headers = request.headers
    if _words(headers.get_all("upgrade")) != [WEBSOCKET]:
        return Reason.UPGRADE_NOT_ALLOWED
    if "upgrade" not in _words(headers.get_all("connection")):
        return Reason.UPGRADE_NOT_ALLOWED
    if request.data.http_version != b"HTTP/1.1" or request.method != "GET":
        return Reason.REQUEST_MALFORMED
    if headers.get("content-length", "0").strip() != "0" or "transfer-encoding" in headers:
        return Reason.REQUEST_MALFORMED
    versions, keys = (headers.get_all(f"sec-websocket-{name}") for name in ("version", "key"))
    if versions != [WEBSOCKET_VERSION.decode()] or len(keys) != 1 or not _is_key(keys[0]):
        return Reason.REQUEST_MALFORMED
    protocols = _listed(headers.get_all("sec-websocket-protocol"))
    if protocols is None or "sec-websocket-accept" in headers:
        return Reason.REQUEST_MALFORMED
    return WebSocketOffer(keys[0], protocols)


def offer_upstream(headers: http.Headers) -> None:
    """Put into a request that is about to be sealed what asks for the socket, and nothing that
    would change how its messages are written."""
    for name in ("sec-websocket-extensions", "content-length"):
        headers.pop(name, None)
    headers["Connection"] = "Upgrade"
    headers["Upgrade"] = WEBSOCKET


def opens(offer: WebSocketOffer, response: http.Response) -> bool:
    """Whether a 101 opens exactly the socket that was asked for."""
    headers = response.headers
    chosen = headers.get_all("sec-websocket-protocol")
    return (
        response.data.http_version == b"HTTP/1.1"
        and _words(headers.get_all("upgrade")) == [WEBSOCKET]
        and "upgrade" in _words(headers.get_all("connection"))
        and headers.get_all("sec-websocket-accept") == [offer.accept]
        and "sec-websocket-extensions" not in headers
        and (not chosen or (len(chosen) == 1 and chosen[0] in offer.protocols))
        and not any(name in headers for name in _NEVER_WITH_IT)
    )


def opened_head(headers: http.Headers) -> None:
    """What the worker needs to see again of the accepted answer."""
    headers["Connection"] = "Upgrade"
    headers["Upgrade"] = WEBSOCKET


def _words(values: Sequence[str]) -> list[str]:
    return [word.strip().lower() for value in values for word in value.split(",")]


def _is_key(text: str) -> bool:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(decoded) == KEY_BYTES and base64.b64encode(decoded).decode() == text


def _listed(values: Sequence[str]) -> tuple[str, ...] | None:
    """The subprotocols of all header lines together; None where they are no list of tokens, or one
    stands there twice."""
    if not values:
        return ()
    names = [name.strip() for value in values for name in value.split(",")]
    is_list = all(_TOKEN.fullmatch(name) for name in names) and len(names) <= MAX_PROTOCOLS
    return tuple(names) if is_list and len(set(names)) == len(names) else None
