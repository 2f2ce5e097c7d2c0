"""Every row of the console against everybody: the table is what happens, and nothing else."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from pydantic import BaseModel
from ulid import ULID

from palyra_fleet.console import pages
from palyra_fleet.console.auth_calls import SignIn
from palyra_fleet.console.gate import COOKIE, CSRF_HEADER, PREFIX, ConsoleRow
from palyra_fleet.console.qr_calls import QrText
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.principals.roles import permits
from palyra_fleet.wire import models as wire
from palyra_fleet.wire import node_models as node_wire
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.principal_models import Role
from tests.fakes.raw_http import RawAnswer, ask, ask_with_pause
from tests.fakes.served_fleet import TOKENS, ServedFleet, served_fleet

BODIES: dict[type[BaseModel], BaseModel] = {
    SignIn: SignIn(token="wrong"),
    QrText: QrText(text="123456"),
    wire.ReasonRequest: wire.ReasonRequest(reason="because"),
    wire.DrainRequest: wire.DrainRequest(reason="because", deadline_ms=1000),
    wire.DrainOneRequest: wire.DrainOneRequest(
        worker_id="01ARZ3NDEKTSV4RRFFQ69G5FAV", reason="because", deadline_ms=1000
    ),
    wire.GrantRequest: wire.GrantRequest(
        run_id="run-1", tool_name="t", principal="p", egress_profile="e", ttl_ms=1000
    ),
    node_wire.PairingCodeRequest: node_wire.PairingCodeRequest(),
    node_wire.ApproveDevice: node_wire.ApproveDevice(reason="because"),
    LabelRequest: LabelRequest(reason="because"),
    node_wire.RotateDeviceRequest: node_wire.RotateDeviceRequest(reason="because"),
    node_wire.InvokeRequest: node_wire.InvokeRequest(capability="echo"),
}
GUARDED = tuple(
    pytest.param(row, id=f"{row.method} {row.path}")
    for row in CONSOLE_ROUTES
    if row.role is not None and row.path != "/events"  # which has tests of its own
)
CHANGES = tuple(one for one in GUARDED if one.values[0].method == "POST")  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class Browser:
    """Somebody who is signed in: the cookie, and what the pages hold."""

    fleet: ServedFleet
    cookie: str
    csrf_token: str

    async def send(self, row: ConsoleRow, **changed: str | None) -> RawAnswer:
        return await send(self.fleet, row, self.headers() | changed)

    def headers(self) -> dict[str, str | None]:
        return {"Cookie": f"{COOKIE}={self.cookie}", CSRF_HEADER: self.csrf_token}


async def send(fleet: ServedFleet, row: ConsoleRow, headers: dict[str, str | None]) -> RawAnswer:
    path = re.sub(r"\{\w+:.*?\{25\}\}", lambda _: str(ULID()), f"{PREFIX}{row.path}")
    body = b"" if row.body is None else BODIES[row.body].model_dump_json().encode()
    sent = {name: value for name, value in headers.items() if value is not None}
    if body:
        sent["Content-Type"] = "application/json"
    return await ask(fleet.admin_url, row.method, path, body, sent)


async def sign_in(fleet: ServedFleet, token: str) -> Browser:
    body = SignIn(token=token).model_dump_json().encode()
    headers = {"Content-Type": "application/json"}
    answer = await ask(fleet.admin_url, "POST", f"{PREFIX}/v1/auth/login", body, headers)
    assert answer.status == 200, answer
    cookie = answer.headers["set-cookie"].split(";")[0].removeprefix(f"{COOKIE}=")
    return Browser(fleet, cookie, json.loads(answer.body)["csrf_token"])


@pytest.fixture
async def fleet() -> AsyncIterator[ServedFleet]:
    async with served_fleet() as served:
        yield served


@pytest.mark.parametrize("row", GUARDED)
async def test_a_row_lets_in_exactly_the_roles_that_permit_it(
    fleet: ServedFleet, row: ConsoleRow
) -> None:
    assert row.role is not None
    for role in Role:
        browser = await sign_in(fleet, TOKENS[role])
        answer = await browser.send(row)
        let_in = answer.status not in {303, 401, 403}
        assert let_in is permits(frozenset({role}), row.role), (role, answer)


@pytest.mark.parametrize("row", GUARDED)
async def test_without_a_session_pages_lead_to_the_sign_in_and_the_rest_is_refused(
    fleet: ServedFleet, row: ConsoleRow
) -> None:
    bearer = {"Authorization": f"Bearer {TOKENS[Role.ADMIN]}"}
    for headers in ({}, {"Cookie": f"{COOKIE}=x"}, bearer):
        answer = await send(fleet, row, dict(headers))
        if row.page:
            assert answer.status == 303
            assert answer.headers["location"].startswith("/console/login?next=%2Fconsole")
        else:
            assert (answer.status, answer.reason) == (401, "console.session_needed")
    assert fleet.service.calls == []


@pytest.mark.parametrize("row", CHANGES)
async def test_a_change_takes_the_pages_token_and_our_own_origin(
    fleet: ServedFleet, row: ConsoleRow
) -> None:
    browser = await sign_in(fleet, TOKENS[Role.ADMIN])
    other = await sign_in(fleet, TOKENS[Role.ADMIN])
    for changed in (
        {CSRF_HEADER: None},
        {CSRF_HEADER: ""},
        {CSRF_HEADER: other.csrf_token},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ):
        answer = await browser.send(row, **changed)
        assert (answer.status, answer.reason) == (403, "console.csrf_refused"), changed
    assert fleet.service.calls == []


async def test_signing_in_makes_a_new_session_and_ends_the_one_before(fleet: ServedFleet) -> None:
    session = next(row for row in CONSOLE_ROUTES if row.path == "/v1/auth/session")
    first = await sign_in(fleet, TOKENS[Role.VIEWER])
    body = SignIn(token=TOKENS[Role.ADMIN]).model_dump_json().encode()
    headers = {"Content-Type": "application/json", "Cookie": f"{COOKIE}={first.cookie}"}
    answer = await ask(fleet.admin_url, "POST", f"{PREFIX}/v1/auth/login", body, headers)
    assert first.cookie not in answer.headers["set-cookie"]
    assert (await first.send(session)).status == 401


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(fleet: ServedFleet) -> None:
    body = SignIn(token=TOKENS[Role.VIEWER]).model_dump_json().encode()
    headers = {"Content-Type": "application/json"}
    answer = await ask(fleet.admin_url, "POST", f"{PREFIX}/v1/auth/login", body, headers)
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "Path=/console", "SameSite=Strict"} <= set(cookie.split("; "))
    assert TOKENS[Role.VIEWER].encode() not in answer.body


async def test_wrong_tokens_are_rate_limited_with_the_api_and_a_right_one_passes(
    fleet: ServedFleet,
) -> None:
    wrong = SignIn(token="wrong").model_dump_json().encode()
    headers = {"Content-Type": "application/json"}
    login = f"{PREFIX}/v1/auth/login"
    answers = [await ask(fleet.admin_url, "POST", login, wrong, headers) for _ in range(12)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 2
    await sign_in(fleet, TOKENS[Role.VIEWER])


async def test_signing_out_ends_the_session(fleet: ServedFleet) -> None:
    by_path = {row.path: row for row in CONSOLE_ROUTES}
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    assert (await browser.send(by_path["/v1/auth/logout"])).status == 200
    assert (await browser.send(by_path["/v1/auth/session"])).status == 401


@pytest.mark.parametrize(
    "wanted",
    ["http://evil.example", "//evil.example", "/console.evil", "javascript:alert(1)", "/v1/x"],
)
async def test_signing_in_leads_to_our_own_pages_only(fleet: ServedFleet, wanted: str) -> None:
    answer = await ask(fleet.admin_url, "GET", f"{PREFIX}/login?next={wanted}")
    assert b'data-next="/console"' in answer.body


async def test_another_host_name_reaches_no_page(fleet: ServedFleet) -> None:
    answer = await ask(fleet.admin_url, "GET", f"{PREFIX}/login", b"", {"Host": "evil.example"})
    assert (answer.status, answer.reason) == (421, "api.host_refused")


@pytest.mark.parametrize(
    "path",
    ["/static/x/console.py", "/static/x/..%2Fgate.py", "/static/x/", "/static/../gate.py", "/v1"],
)
async def test_nothing_but_the_table_is_served(fleet: ServedFleet, path: str) -> None:
    assert (await ask(fleet.admin_url, "GET", f"{PREFIX}{path}")).status == 404


async def test_pages_allow_nothing_inline_and_nothing_from_elsewhere(fleet: ServedFleet) -> None:
    browser = await sign_in(fleet, TOKENS[Role.ADMIN])
    for row in (row for row in CONSOLE_ROUTES if row.page and "{" not in row.path):
        answer = await browser.send(row)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        text = answer.body.decode()
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|https?://", text), row.path
        assert answer.headers["cache-control"] == "no-store"


async def test_a_session_that_ends_while_the_body_comes_changes_nothing(
    fleet: ServedFleet,
) -> None:
    browser = await sign_in(fleet, TOKENS[Role.ADMIN])
    headers = {name: str(value) for name, value in browser.headers().items()}

    async def sign_out() -> None:
        path = f"{PREFIX}/v1/auth/logout"
        assert (await ask(fleet.admin_url, "POST", path, headers=headers)).status == 200

    answer = await ask_with_pause(
        fleet.admin_url,
        f"{PREFIX}/v1/networked-workers/{fleet.worker_id}/ban",
        b'{"reason": "because"}',
        headers,
        sign_out,
    )
    assert (answer.status, answer.reason) == (401, "console.session_needed")
    assert fleet.service.calls == []


async def test_a_change_with_a_key_is_made_once_for_its_principal(fleet: ServedFleet) -> None:
    row = next(one for one in CONSOLE_ROUTES if (one.method, one.path) == ("POST", "/v1/grants"))
    browser, other = [await sign_in(fleet, TOKENS[role]) for role in (Role.APPROVER, Role.ADMIN)]
    key = {"Idempotency-Key": "0123456789abcdef"}
    first = await browser.send(row, **key)
    assert (first.status, (await browser.send(row, **key)).body) == (201, first.body)
    assert (await other.send(row, **key)).body != first.body
    assert len(fleet.service.made_grants) == 2
    withdraw = next(one for one in CONSOLE_ROUTES if one.path.startswith("/v1/grants/"))
    assert (await browser.send(withdraw, **key)).reason == "api.idempotency_key_reused"
    assert (await browser.send(row, **{"Idempotency-Key": "bent key"})).status == 400


@pytest.mark.parametrize("path", ["/workers", "/violations", "/audit"])
@pytest.mark.parametrize("cursor", ["", "x", "%27%20OR%201=1--", "dzow", "A" * 500, "..%2F.."])
async def test_a_page_begins_where_its_list_may_and_nowhere_else(
    fleet: ServedFleet, path: str, cursor: str
) -> None:
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    headers = {"Cookie": str(browser.headers()["Cookie"])}
    answer = await ask(fleet.admin_url, "GET", f"{PREFIX}{path}?cursor={cursor}", b"", headers)
    assert (answer.status, answer.reason) == (400, "api.query_invalid")


async def test_the_pages_of_the_workers_hold_each_of_them_once(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_ON_A_PAGE", 2)
    for _ in range(4):
        fleet.service.add_worker(SigningKey.generate().public_key)
    browser = await sign_in(fleet, TOKENS[Role.VIEWER])
    headers = {"Cookie": str(browser.headers()["Cookie"])}
    path, seen = "/console/workers", []
    while path:
        text = (await ask(fleet.admin_url, "GET", path, b"", headers)).body.decode()
        seen += re.findall(r'href="/console/workers/([0-9A-Z]{26})"', text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        path = following[1] if following else ""
    assert seen == sorted(fleet.service.known, reverse=True)
