"""Who may see a credential, and what is written in the place of a worker's header."""

import pytest
from mitmproxy import http
from mitmproxy.connection import ConnectionState, Server

from palyra_egress.credentials.binding import (
    CredentialBinding,
    SecretRef,
    SecretSource,
    SecretValue,
)
from palyra_egress.credentials.injection import Injected
from palyra_egress.proxy.http.canonical import plain_target, tunnelled_target
from palyra_egress.proxy.http.credential_headers import (
    drop_bound,
    is_verified,
    redact_echo,
    with_injected,
)
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_egress.request import CanonicalHost

SECRET = "the-real-secret-0123456789"
REF = SecretRef(SecretSource.VAULT, "global/a")
INJECTED = (
    Injected(CredentialBinding("x-api-key", REF), SecretValue(SECRET), SecretValue(SECRET)),
)
TARGET = tunnelled_target(RequestHead("GET", "/"), ["a.example"], CanonicalHost("a.example"), 443)


def server(**fields: object) -> Server:
    """An upstream connection as it is once TLS to the judged host has been verified."""
    made = Server(address=("a.example", 443))
    made.tls, made.sni, made.timestamp_tls_setup = True, "a.example", 1.0
    for name, value in fields.items():
        setattr(made, name, value)
    made.state = ConnectionState.OPEN
    return made


def test_verified_tls_to_the_judged_host_may_see_a_credential() -> None:
    assert is_verified(server(), TARGET)


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp_tls_setup": None},
        {"address": ("b.example", 443)},
        {"address": ("a.example", 8443)},
        {"address": None},
        {"sni": "b.example"},
        {"sni": None},
    ],
    ids=str,
)
def test_any_other_connection_may_not(fields: dict[str, object]) -> None:
    assert not is_verified(server(**fields), TARGET)


def test_no_connection_and_no_plain_target_may_see_one() -> None:
    plain = plain_target(RequestHead("GET", "http://a.example:443/"), ["a.example:443"])

    assert not is_verified(None, TARGET)
    assert not is_verified(server(), plain)


def request(*fields: tuple[bytes, bytes]) -> http.Request:
    made = http.Request.make("POST", "https://a.example/", b"body")
    made.headers.fields = ((b"Host", b"a.example"), *fields)
    return made


def test_every_spelling_of_a_bound_header_is_dropped_and_no_other() -> None:
    made = request(
        (b"X-API-KEY", b"1"), (b"x_api_key", b"2"), (b"X-Api-Keys", b"3"), (b"Api-Key", b"4")
    )

    drop_bound(made.headers, INJECTED)

    assert [name for name, _ in made.headers.fields] == [b"Host", b"X-Api-Keys", b"Api-Key"]


def test_the_credential_stands_on_a_copy_and_once() -> None:
    made = request((b"Accept", b"*/*"))
    made.stream = lambda data: data

    leaves = with_injected(made, INJECTED)

    assert leaves.headers.fields[-1] == (b"X-Api-Key", SECRET.encode())
    assert b"X-Api-Key" not in dict(made.headers.fields)
    assert (leaves.data.method, leaves.data.path, leaves.data.content) == (
        made.data.method,
        made.data.path,
        made.data.content,
    )


def response(*fields: tuple[bytes, bytes]) -> http.Response:
    return http.Response.make(200, b"", fields)


def test_framing_is_never_changed_by_redaction() -> None:
    numeric = (Injected(INJECTED[0].binding, SecretValue("12345678"), SecretValue("12345678")),)
    made = http.Response(
        b"HTTP/1.1",
        200,
        b"OK",
        http.Headers([(b"Content-Length", b"12345678"), (b"X-Id", b"12345678")]),
        None,
        None,
        0.0,
        0.0,
    )

    redact_echo(made, numeric)

    assert made.headers.fields == ((b"Content-Length", b"12345678"), (b"X-Id", b"[redacted]"))


def test_a_header_whose_name_is_the_secret_is_taken_away() -> None:
    made = response((SECRET.title().encode(), b"x"), (b"X-Kept", b"y"))

    redact_echo(made, INJECTED)

    assert made.headers.get("x-kept") == "y"
    assert SECRET.title() not in made.headers
