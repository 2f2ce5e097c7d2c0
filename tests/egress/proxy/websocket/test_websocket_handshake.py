"""The heads that begin a WebSocket, as values: what is an offer, and what opens exactly that."""

import pytest
from mitmproxy import http
from mitmproxy.net.http import http1

from palyra_egress.proxy.websocket.websocket_handshake import (
    WebSocketOffer,
    offer_upstream,
    opens,
    read_offer,
)
from palyra_egress.reasons import Reason

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # with its answer, from RFC 6455 section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASKED = {
    "Host": "a.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
OPENED = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}


def request(line: str = "GET /socket HTTP/1.1", **changed: str | None) -> http.Request:
    """The usual request with some headers changed or (None) left out; underscores are hyphens."""
    names = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    kept = [(k, v) for k, v in ASKED.items() if k.lower() not in names]
    kept += [(k, v) for k, v in names.items() if v is not None]
    return raw_request(line, *(f"{k}: {v}" for k, v in kept))


def raw_request(line: str, *headers: str) -> http.Request:
    return http1.read_request_head([line.encode(), *(one.encode() for one in headers)])


def response(status: str = "HTTP/1.1 101 Switching Protocols", **changed: str | None):
    names = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    kept = [(k, v) for k, v in OPENED.items() if k.lower() not in names]
    kept += [(k, v) for k, v in names.items() if v is not None]
    return http1.read_response_head([status.encode(), *(f"{k}: {v}".encode() for k, v in kept)])


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(upgrade="WebSocket"),
        request(connection="keep-alive, Upgrade"),
        request(connection="upgrade"),
        request(content_length="0"),
        request(sec_websocket_extensions="permessage-deflate; client_max_window_bits"),
    ],
)
def test_the_offer_of_an_ordinary_client_is_read(asked):
    offer = read_offer(asked)
    assert offer == WebSocketOffer(KEY, ())


def test_the_answer_to_a_key_is_that_of_the_standard():
    assert WebSocketOffer(KEY, ()).accept == ACCEPT


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(upgrade="h2c"), Reason.UPGRADE_NOT_ALLOWED),
        (request(upgrade="websocket, h2c"), Reason.UPGRADE_NOT_ALLOWED),
        (request(upgrade="websocket/13"), Reason.UPGRADE_NOT_ALLOWED),
        (request(upgrade="TLS/1.2"), Reason.UPGRADE_NOT_ALLOWED),
        (request(upgrade=""), Reason.UPGRADE_NOT_ALLOWED),
        (request(connection="keep-alive"), Reason.UPGRADE_NOT_ALLOWED),
        (request(connection=None), Reason.UPGRADE_NOT_ALLOWED),
        (request("POST /socket HTTP/1.1"), Reason.REQUEST_MALFORMED),
        (request("HEAD /socket HTTP/1.1"), Reason.REQUEST_MALFORMED),
        (request("GET /socket HTTP/1.0"), Reason.REQUEST_MALFORMED),
        (request(content_length="5"), Reason.REQUEST_MALFORMED),
        (request(transfer_encoding="chunked"), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_version="8"), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_version="13, 8"), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_version=None), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_key=None), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_key=""), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_key="dGhlIHNhbXBsZSBub25j"), Reason.REQUEST_MALFORMED),  # 15 bytes
        (request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZR=="), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_key="not base64 at all!!!!==="), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_accept=ACCEPT), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_protocol="a b"), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_protocol="chat, chat"), Reason.REQUEST_MALFORMED),
        (request(sec_websocket_protocol="chat,,x"), Reason.REQUEST_MALFORMED),
    ],
)
def test_any_other_request_for_an_upgrade_is_refused(asked, reason):
    assert read_offer(asked) is reason


@pytest.mark.parametrize("twice", ["Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_what_stands_there_twice_is_no_offer(twice):
    lines = [f"{k}: {v}" for k, v in ASKED.items()]
    asked = raw_request("GET / HTTP/1.1", *lines, f"{twice}: {ASKED[twice]}")
    assert isinstance(read_offer(asked), Reason)


def test_subprotocols_are_read_over_all_lines():
    lines = [f"{k}: {v}" for k, v in ASKED.items()]
    more = ("Sec-WebSocket-Protocol: chat, super", "Sec-WebSocket-Protocol: x")
    offer = read_offer(raw_request("GET / HTTP/1.1", *lines, *more))
    assert offer == WebSocketOffer(KEY, ("chat", "super", "x"))


def test_no_extension_is_offered_to_the_server():
    asked = request(sec_websocket_extensions="permessage-deflate")
    offer_upstream(asked.headers)
    assert "sec-websocket-extensions" not in asked.headers
    assert (asked.headers["upgrade"], asked.headers["connection"]) == ("websocket", "Upgrade")


@pytest.mark.parametrize(
    ("answer", "is_open"),
    [
        (response(), True),
        (response(upgrade="WebSocket", connection="keep-alive, upgrade"), True),
        (response(sec_websocket_protocol="chat"), True),
        (response("HTTP/1.0 101 Switching Protocols"), False),
        (response(upgrade=None), False),
        (response(upgrade="foo"), False),
        (response(upgrade="websocket, foo"), False),
        (response(connection=None), False),
        (response(connection="close"), False),
        (response(sec_websocket_accept=None), False),
        (response(sec_websocket_accept=""), False),
        (response(sec_websocket_accept=KEY), False),
        (response(sec_websocket_accept=ACCEPT.lower()), False),
        (response(sec_websocket_accept=f"{ACCEPT}, {ACCEPT}"), False),
        (response(sec_websocket_extensions="permessage-deflate"), False),
        (response(sec_websocket_extensions=""), False),
        (response(sec_websocket_protocol="other"), False),
        (response(sec_websocket_protocol="chat, super"), False),
        (response(sec_websocket_protocol=""), False),
        (response(content_length="5"), False),
        (response(transfer_encoding="chunked"), False),
    ],
)
def test_only_the_answer_to_this_offer_opens_the_socket(answer, is_open):
    assert opens(WebSocketOffer(KEY, ("chat", "super")), answer) is is_open


def test_a_protocol_that_nobody_asked_for_opens_nothing():
    assert not opens(WebSocketOffer(KEY, ()), response(sec_websocket_protocol="chat"))
