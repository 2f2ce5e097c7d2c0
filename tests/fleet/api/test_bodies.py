"""What a request may carry: hostile and clumsy bodies, types, queries and paths."""

import asyncio
import json

import pytest
from ulid import ULID

from palyra_fleet.api.call import MAX_BODY_BYTES
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.request_proof import HEADER, prove
from tests.fakes.raw_http import RawAnswer, ask, ask_raw
from tests.fakes.served_fleet import TOKEN, ServedFleet, served_fleet

JSON = {"Content-Type": "application/json"}
BEAT = b'{"session_epoch": 1, "seq": 1, "held_leases": []}'


async def as_operator(
    fleet: ServedFleet,
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> RawAnswer:
    token = {"Authorization": f"Bearer {TOKEN}"}
    return await ask(fleet.admin_url, method, target, body, {**token, **(headers or {})})


async def as_worker(
    fleet: ServedFleet, target: str, body: bytes, headers: dict[str, str] = JSON
) -> RawAnswer:
    proof = prove(fleet.worker_key, "POST", target, body, now_unix_ms())
    return await ask(fleet.socket_path, "POST", target, body, {HEADER: proof, **headers})


MALFORMED = [
    pytest.param(b"{", id="unfinished"),
    pytest.param(b"", id="empty"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b"\xff\xfe{}", id="not UTF-8"),
    pytest.param(b"[" * 20_000, id="deeply nested"),
    pytest.param(b'{"reason": ""}', id="an empty reason"),
    pytest.param(b'{"reason": 7}', id="a number for a text"),
    pytest.param(b'{"reason": "' + b"x" * 501 + b'"}', id="a reason too long"),
    pytest.param(b'{"reason": "ok", "force": true}', id="an unknown field"),
    pytest.param(b'{"reason": "\\ud800"}', id="half a surrogate pair"),
]


@pytest.mark.parametrize("body", MALFORMED)
async def test_a_body_that_does_not_fit_is_refused_before_the_fleet_sees_it(
    fleet: ServedFleet, body: bytes
) -> None:
    target = f"/v1/workers/{fleet.worker_id}:quarantine"
    answer = await as_operator(fleet, "POST", target, body, JSON)
    assert (answer.status, answer.reason) == (400, "api.body_invalid")
    assert fleet.service.calls == []


async def test_a_refused_body_is_described_by_its_places_and_never_repeated(
    fleet: ServedFleet,
) -> None:
    body = json.dumps({"session_epoch": "s3cr3t-value", "s3cr3t-name": 1}).encode()
    answer = await as_worker(fleet, "/v1/worker/heartbeat", body)
    assert answer.reason == "api.body_invalid"
    assert "session_epoch: int_type" in answer.problem["detail"]
    assert b"s3cr3t" not in answer.body


async def test_a_body_of_exactly_the_bound_is_read(fleet: ServedFleet) -> None:
    body = BEAT + b" " * (MAX_BODY_BYTES - len(BEAT))
    assert (await as_worker(fleet, "/v1/worker/heartbeat", body)).status == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_body_over_the_bound_is_refused(fleet: ServedFleet, chunked: bool) -> None:
    body = BEAT + b" " * (MAX_BODY_BYTES - len(BEAT) + 1)
    headers = dict(JSON)
    proof = prove(fleet.worker_key, "POST", "/v1/worker/heartbeat", body, now_unix_ms())
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    answer = await ask(
        fleet.socket_path, "POST", "/v1/worker/heartbeat", body, {HEADER: proof, **headers}
    )
    assert (answer.status, answer.reason) == (413, "api.body_too_large")


async def test_a_promised_body_over_the_bound_is_refused_unread(fleet: ServedFleet) -> None:
    headers = {**JSON, "Content-Length": str(10**12)}
    answer = await as_operator(fleet, "POST", "/v1/grants", b"{}", headers)
    assert (answer.status, answer.reason) == (413, "api.body_too_large")


async def test_a_body_that_does_not_arrive_in_time_is_refused() -> None:
    async with served_fleet(body_within_ms=50) as fleet:
        headers = {**JSON, "Content-Length": "10"}
        answer = await as_operator(fleet, "POST", "/v1/grants", b"{", headers)
        assert (answer.status, answer.reason) == (408, "api.body_late")


CONTENT_TYPES = [
    ("application/json", True),
    ("application/json; charset=utf-8", True),
    ('Application/JSON;charset="UTF-8"', True),
    ("application/json; charset=utf-16", False),
    ("application/json, text/plain", False),
    ("application/jsonx", False),
    ("text/json", False),
    ("text/plain", False),  # what a web page may send without asking first
    ("application/x-www-form-urlencoded", False),
    ("multipart/form-data; boundary=x", False),
    ("application/problem+json", False),
]


@pytest.mark.parametrize(("content_type", "taken"), CONTENT_TYPES)
async def test_only_json_is_taken(fleet: ServedFleet, content_type: str, taken: bool) -> None:
    answer = await as_worker(fleet, "/v1/worker/heartbeat", BEAT, {"Content-Type": content_type})
    assert answer.status == (200 if taken else 415)


async def test_a_body_without_a_type_is_refused(fleet: ServedFleet) -> None:
    answer = await as_worker(fleet, "/v1/worker/heartbeat", BEAT, {})
    assert (answer.status, answer.reason) == (415, "api.content_type")


async def test_a_compressed_body_is_refused(fleet: ServedFleet) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    answer = await as_operator(fleet, "POST", "/v1/grants", b"{}", headers)
    assert answer.status in {400, 415}
    assert fleet.service.calls == []


async def test_a_route_without_a_body_takes_none(fleet: ServedFleet) -> None:
    answer = await as_operator(fleet, "POST", "/v1/events:verify", b"{}", JSON)
    assert (answer.status, answer.reason) == (400, "api.body_invalid")


QUERIES = [
    ("/v1/events", 200),
    ("/v1/events?after_seq=0&limit=1000", 200),
    ("/v1/events?limit=0", 400),
    ("/v1/events?limit=1001", 400),
    ("/v1/events?limit=-1", 400),
    ("/v1/events?limit=1e2", 400),
    ("/v1/events?limit=%D9%A1", 400),  # an Arabic digit one
    ("/v1/events?limit=" + "9" * 400, 400),
    ("/v1/events?limit=", 400),
    ("/v1/events?limit=1&limit=2", 400),
    ("/v1/events?wait=61", 400),
    ("/v1/events?wait=0.5", 400),
    ("/v1/events?wait_ms=1", 400),
    ("/v1/events?after_seq=1", 409),  # ahead of a log that is empty
    ("/v1/violations?worker_id=not-an-id", 400),
    ("/v1/violations?worker_id=01ARZ3NDEKTSV4RRFFQ69G5FAV", 200),
    ("/v1/workers?state=Busy", 400),
    ("/v1/workers?state=busy&eligibility=eligible&attestor=launcher&capability=gpu", 200),
    ("/v1/workers?eligibility=perhaps", 400),
    ("/v1/workers?demanded=true", 200),
    ("/v1/workers?demanded=false&state=busy", 200),
    ("/v1/workers?demanded=yes", 400),
    ("/v1/workers?demanded=", 400),
    ("/v1/workers?attestor=anybody", 400),
    ("/v1/workers?capability=a%20b", 400),
    ("/v1/workers?waits=true&state=available", 200),
    ("/v1/workers?waits=false", 200),
    ("/v1/workers?waits=True", 400),
    ("/v1/workers?waits=", 400),
    ("/v1/workers?label=blue&label=zone%3Da", 200),
    ("/v1/workers?label=-blue", 400),
    ("/v1/workers?colour=blue", 400),  # not a filter: refused, not ignored
]


@pytest.mark.parametrize(("target", "status"), QUERIES)
async def test_a_query_is_known_bounded_and_given_once(
    fleet: ServedFleet, target: str, status: int
) -> None:
    answer = await as_operator(fleet, "GET", target)
    assert answer.status == status
    if status == 400:
        assert answer.reason == "api.query_invalid"


async def test_a_long_poll_cannot_be_asked_to_wait_for_ever(fleet: ServedFleet) -> None:
    target = "/v1/worker/orders?wait_ms=30001"
    proof = prove(fleet.worker_key, "GET", target, b"", now_unix_ms())
    answer = await ask(fleet.socket_path, "GET", target, headers={HEADER: proof})
    assert answer.reason == "api.query_invalid"


PATHS = [
    "/",
    "/v1",
    "/v1/",
    "/v1/worker",
    "/v1/workers/",
    "/v1/workers/../workers/x",
    "/v1/workers/%2e%2e/events",
    "/v1/workers//",
    "//v1/workers",
    "/V1/workers",
    "/v1/workers/01arz3ndektsv4rrffq69g5fav",  # ids are upper case
    "/v1/workers/01ARZ3NDEKTSV4RRFFQ69G5FAV:quarantine",  # an action is not a resource to GET
    "/v1/workers/01ARZ3NDEKTSV4RRFFQ69G5FAV%00",
    "/v1/workers/01ARZ3NDEKTSV4RRFFQ69G5FAV%0A",
    "/v1/workers/01ARZ3NDEKTSV4RRFFQ69G5FAV/",
    "/v1/workers/81ARZ3NDEKTSV4RRFFQ69G5FAV",  # too large for a ULID
    "/v1/nothing",
]


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_no_resource_is_not_found(fleet: ServedFleet, path: str) -> None:
    answer = await as_operator(fleet, "GET", path)
    assert answer.reason in {"api.not_found", "api.method_not_allowed"}
    assert fleet.service.calls == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_a_method_without_a_row_is_refused_with_the_methods_that_have_one(
    fleet: ServedFleet, method: str
) -> None:
    answer = await as_operator(fleet, method, "/v1/workers")
    assert (answer.status, answer.reason) == (405, "api.method_not_allowed")
    assert answer.headers["allow"] == "GET"


NOT_HTTP = [
    pytest.param(b"BREW /s3cr3t HTTP/1.1\r\n\r\n", id="an unknown method"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nAuth\0: s3cr3t\r\n\r\n", id="a null byte"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n s3cr3t: folded\r\n\r\n", id="folding"),
    pytest.param(b"GET /" + b"s3cr3t" * 2000 + b" HTTP/1.1\r\n\r\n", id="a long line"),
    pytest.param(
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        id="two lengths (request smuggling)",
    ),
    pytest.param(b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", id="twice"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", id="TLS"),
]


@pytest.mark.parametrize("request_bytes", NOT_HTTP)
async def test_bytes_that_are_no_request_get_a_problem_and_are_neither_repeated_nor_logged(
    fleet: ServedFleet, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await ask_raw(fleet.admin_url, request_bytes)
    assert (answer.status, answer.reason) == (400, "api.request_invalid")
    assert b"s3cr3t" not in answer.body
    assert "s3cr3t" not in caplog.text
    assert answer.headers["cache-control"] == "no-store"


HOSTS = [
    ("localhost", True),
    ("LOCALHOST:7741", True),
    ("127.0.0.1", True),
    ("127.0.0.1:80", True),
    ("[::1]", True),
    ("[::1]:7741", True),
    ("evil.example", False),
    ("localhost.evil.example", False),
    ("127.0.0.1.evil.example", False),
    ("localhost:80:80", False),
    ("localhost:x", False),
    ("localhost@evil.example", False),
    ("127.1", False),
    ("0.0.0.0", False),
    ("::1", False),
    ("[::1", False),
    ("", False),
]


@pytest.mark.parametrize(("host", "answered"), HOSTS)
async def test_the_admin_listener_answers_only_to_its_own_names(
    fleet: ServedFleet, host: str, answered: bool
) -> None:
    answer = await as_operator(fleet, "GET", "/v1/workers", headers={"Host": host})
    assert answer.status == (200 if answered else 421)


async def test_a_rebound_name_learns_nothing_not_even_which_paths_exist(
    fleet: ServedFleet,
) -> None:
    for path in ("/livez", "/v1/workers", "/nothing"):
        answer = await ask(fleet.admin_url, "GET", path, headers={"Host": "evil.example"})
        assert answer.reason in {"api.host_refused", "api.not_found"}
        assert answer.status != 200


async def test_every_answer_forbids_storing_and_sniffing(fleet: ServedFleet) -> None:
    answers = [
        await as_operator(fleet, "GET", "/v1/workers"),
        await as_operator(fleet, "GET", "/nothing"),
        await ask(fleet.admin_url, "GET", "/v1/workers"),
        await ask(fleet.socket_path, "GET", "/livez"),
    ]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["server"] == "palyra-fleet"


async def test_wrong_tokens_are_rate_limited_and_the_right_one_still_passes(
    fleet: ServedFleet,
) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    answers = [await ask(fleet.admin_url, "GET", "/v1/workers", headers=wrong) for _ in range(14)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 4
    assert len({answer.body for answer in answers[:10]}) == 1
    assert len({answer.body for answer in answers[10:]}) == 1
    assert (await as_operator(fleet, "GET", "/v1/workers")).status == 200


async def test_a_refusal_of_the_fleet_keeps_its_reason_status_and_text(
    fleet: ServedFleet,
) -> None:
    fleet.service.refuse_with = FleetRefusal(FleetReason.STORM, "new leases are frozen")
    answer = await as_operator(fleet, "GET", "/v1/workers")
    assert (answer.status, answer.reason) == (409, "fleet.storm_breaker")
    assert answer.problem["detail"] == "new leases are frozen"


async def test_a_fault_of_ours_is_a_500_without_detail_and_a_log_line_without_values(
    fleet: ServedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.service.fail_with = RuntimeError("egress_secret=hunter2")
    answer = await as_operator(fleet, "GET", f"/v1/workers/{ULID()}")
    assert (answer.status, answer.reason) == (500, "api.internal")
    assert b"hunter2" not in answer.body
    assert "GET /v1/workers/{worker_id} failed: RuntimeError" in caplog.text
    assert "hunter2" not in caplog.text
    assert TOKEN not in caplog.text


async def test_ready_says_each_check_and_turns_503_when_one_is_bad(fleet: ServedFleet) -> None:
    answer = await ask(fleet.socket_path, "GET", "/readyz")
    assert (answer.status, json.loads(answer.body)["status"]) == (200, "ok")
    fleet.service.checks = {"store": "ok", "authority": "damaged"}
    answer = await ask(fleet.admin_url, "GET", "/readyz")
    assert (answer.status, json.loads(answer.body)["checks"]) == (503, fleet.service.checks)
    fleet.service.checks = {}
    assert (await ask(fleet.admin_url, "GET", "/readyz")).status == 503


async def test_an_alarm_is_shown_and_does_not_make_the_fleet_unready(fleet: ServedFleet) -> None:
    fleet.service.raised = {"evidence": "look at it"}
    answer = await ask(fleet.socket_path, "GET", "/readyz")
    assert (answer.status, json.loads(answer.body)["alarms"]) == (200, fleet.service.raised)


async def test_one_proof_used_by_many_at_once_lets_in_one(fleet: ServedFleet) -> None:
    proof = prove(fleet.worker_key, "POST", "/v1/worker/heartbeat", BEAT, now_unix_ms())
    headers = {HEADER: proof, **JSON}
    answers = await asyncio.gather(
        *(ask(fleet.socket_path, "POST", "/v1/worker/heartbeat", BEAT, headers) for _ in range(20))
    )
    assert sorted(answer.status for answer in answers) == [200] + [401] * 19
