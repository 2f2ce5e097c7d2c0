"""Nothing that a caller sends becomes a header, another answer, or a line of the log.

Every value is sent as bytes over a real socket, to the admin listener as somebody who may, and
what comes back is read as bytes: only headers of ours, each once, and nothing of what was sent.
"""

import json
import re
from collections.abc import Iterator

import pytest

from tests.fakes.log_lines import json_lines
from tests.fakes.raw_http import open_connection
from tests.fakes.served_fleet import TOKEN, ServedFleet

MARK = b"injected"
TOLD_BACK = (
    b"Idempotency-Key",
    b"Palyra-Request-Id",
    b"X-Request-Id",
    b"X-Correlation-Id",
    b"Traceparent",
    b"Cookie",
    b"X-Palyra-Csrf-Token",
    b"Last-Event-ID",
    b"Origin",
    b"Referer",
    b"User-Agent",
    b"X-Forwarded-For",
    b"Forwarded",
    b"Accept",
    MARK,
)
"""Headers that some programs repeat in their answers or logs."""
SPLITS = {
    "as it is": b"injected-0123456789",
    "CR LF": b"x\r\nSet-Cookie: injected=1",
    "LF": b"x\nSet-Cookie: injected=1",
    "CR": b"x\rSet-Cookie: injected=1",
    "NUL": b"x\x00injected",
    "a fold": b"x\r\n injected",
    "percent": b"x%0d%0aSet-Cookie:%20injected=1",
    "percent twice": b"x%250d%250ainjected",
    "JSON": b'x\\r\\n{"injected": "\\u000a"}',
    "what narrows to CR LF": "x\u560d\u560ainjected".encode(),
    "NEL": b"x\x85injected",
    "a terminal's": b"x\x1b[2Jinjected",
    "another answer": b"x\r\n\r\nHTTP/1.1 200 OK\r\nInjected: injected\r\n\r\n",
}
OURS = {
    b"allow",
    b"cache-control",
    b"connection",
    b"content-length",
    b"content-security-policy",
    b"content-type",
    b"date",
    b"palyra-request-id",
    b"palyra-seq",
    b"server",
    b"x-content-type-options",
}
TARGETS = (
    b"/v1/workers?state=injected%0d%0aSet-Cookie:%20a=b",
    b"/v1/workers?injected=%0d%0a",
    b"/v1/workers/injected%0d%0aSet-Cookie:%20a=b",
    b"/v1/injected%0d%0a%0d%0aHTTP/1.1%20200%20OK",
    b"/injected\xe5\x98\x8d\xe5\x98\x8a",
    b"/v1/principals/injected%0a:revoke",
    b"/%0d%0ainjected",
)


@pytest.fixture
def lines() -> Iterator[list[dict[str, object]]]:
    with json_lines("palyra_fleet") as found:
        yield found


async def said_to(fleet: ServedFleet, request: bytes) -> bytes:
    """Everything that comes back until the connection ends."""
    reader, writer = await open_connection(fleet.admin_url)
    writer.write(request)
    said = await reader.read()
    writer.close()
    return said


def of_us(said: bytes, *, first_only: bool = False) -> int:
    """The status of an answer that has our headers alone, each once, and nothing that was sent."""
    head, _, rest = said.partition(b"\r\n\r\n")
    status_line, *fields = head.split(b"\r\n")
    names = [field.partition(b":")[0].lower() for field in fields]
    assert MARK not in said.lower()
    assert set(names) <= OURS and len(set(names)) == len(names), names
    assert not re.search(rb"[\r\n\x00]", b"".join(fields))
    assert first_only or b"HTTP/1.1" not in rest
    return int(status_line.split()[1])


def request_with(fleet: ServedFleet, header: bytes, value: bytes) -> bytes:
    body = b'{"reason": "because"}'
    return (
        f"POST /v1/workers/{fleet.worker_id}:cordon HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    ).encode() + b"%b: %b\r\n\r\n%b" % (header, value, body)


@pytest.mark.parametrize("value", SPLITS.values(), ids=SPLITS.keys())
async def test_no_header_of_a_caller_comes_back_or_is_logged(
    fleet: ServedFleet, lines: list[dict[str, object]], value: bytes
) -> None:
    for header in TOLD_BACK:
        said = await said_to(fleet, request_with(fleet, header, value))
        hidden = value == SPLITS["another answer"]  # the head ends there, so the body is missing
        assert of_us(said, first_only=hidden) in {200, 204, 400}, header
    assert MARK.decode() not in json.dumps(lines)
    assert {line["log.level"] for line in lines} <= {"info"}


async def test_a_caller_does_not_choose_the_id_of_its_request(
    fleet: ServedFleet, lines: list[dict[str, object]]
) -> None:
    given = b"01ARZ3NDEKTSV4RRFFQ69G5FAV"
    ids = []
    for header in (b"Palyra-Request-Id", b"X-Request-Id"):
        said = await said_to(fleet, request_with(fleet, header, given).replace(b"POST", b"PUT"))
        ids += re.findall(rb"\r\nPalyra-Request-Id: (\w{26})\r\n", said)
    assert len(set(ids)) == 2 and given not in ids
    logged = [line["http.request.id"] for line in lines]
    assert logged == [one.decode() for one in ids]


@pytest.mark.parametrize("key", [value for value in SPLITS.values() if value[:1] == b"x"])
async def test_an_idempotency_key_of_another_form_is_refused_and_nothing_is_done(
    fleet: ServedFleet, key: bytes
) -> None:
    said = await said_to(fleet, request_with(fleet, b"Idempotency-Key", key + b"0123456789"))
    assert of_us(said, first_only=True) == 400
    assert fleet.service.calls == []


@pytest.mark.parametrize("target", TARGETS)
async def test_nothing_of_a_target_comes_back_or_is_logged(
    fleet: ServedFleet, lines: list[dict[str, object]], target: bytes
) -> None:
    head = f" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    for method in (b"GET", b"POST", b"INJECTED"):
        said = await said_to(fleet, method + b" " + target + head + b"Connection: close\r\n\r\n")
        assert of_us(said) in {400, 404, 405, 415}, method
    told = json.dumps([line for line in lines if line.get("http.request.method") != "INJECTED"])
    assert MARK.decode() not in told


@pytest.mark.parametrize("host", [b"injected", b"localhost\x00injected", b"localhost injected"])
async def test_another_host_is_refused_and_not_repeated(fleet: ServedFleet, host: bytes) -> None:
    said = await said_to(
        fleet, b"GET /livez HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    )
    assert of_us(said) in {400, 421}
