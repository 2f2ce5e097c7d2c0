"""Headers that may carry a bound secret, and headers that never do."""

import pytest

from palyra_egress.credentials.header_names import header_problem, usual_header
from palyra_egress.proxy.http.canonical import HOP_BY_HOP


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "authorization-v2",
        "x-api-key",
        "x-goog-api-key",
        "x-auth",
        "private-token",
        "dd-api-key",
        "api-key",
        "cookie",
    ],
)
def test_headers_that_say_who_asks_may_carry_a_secret(name: str) -> None:
    assert header_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP),
        "",
        "host",
        "content-length",
        "content-type",
        "content-token",
        "transfer-encoding",
        "transfer-token",
        "proxy-authorization",
        "proxy-token",
        "proxy-api-key",
        "palyra-token",
        "palyra-worker-key",
        "x-palyra-decision",
        "x-forwarded-for",
        "sec-websocket-token",
        "expect",
        "via",
        "user-agent",
        "referer",
        "token",
        "-token",
        "x-",
        "set-cookie",
        "cookie2",
        "x-a b",
        "x-a:b",
        "x-a\r\ny",
        "x-caf\u00e9",
        "Authorization",
        "x-" + "a" * 80,
    ],
)
def test_headers_that_mean_something_else_never_carry_one(name: str) -> None:
    assert header_problem(name) is not None


def test_a_misspelt_header_is_answered_with_the_usual_one() -> None:
    assert usual_header("authorisation") == "authorization"
    assert usual_header("zzzzzz") is None
