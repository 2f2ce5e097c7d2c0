"""The answer to a change says how far it brought the log: on every route that changes, and rightly.

The tables say which routes these are. The first half asks the documents; the second asks a fleet.
"""

import asyncio
import json

from palyra_fleet.api.answers import REQUEST_ID_HEADER, SEQ_HEADER
from palyra_fleet.api.openapi import document
from palyra_fleet.api.routes import ROUTES
from palyra_fleet.console.openapi import JSON_BELOW, console_document
from palyra_fleet.console.routes import CONSOLE_ROUTES
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import GrantRequest
from palyra_fleet.wire.principal_models import Role
from tests.fakes.raw_http import RawAnswer, ask
from tests.fakes.real_fleet import RealFleet, real_fleet
from tests.fakes.served_fleet import TOKEN, ServedFleet
from tests.fleet.console.test_gate import sign_in

ASKED_WITH_POST = {
    *("/v1/events:verify", "/v1/events/verify", "/v1/auth/logout", "/v1/pairing/qr"),
    *("/v1/policies:check", "/v1/policies:explain"),
}
"""What takes POST and changes nothing that the log is about."""


def good_answers(operation: dict[str, object]) -> list[dict[str, object]]:
    responses = operation["responses"]
    assert isinstance(responses, dict)
    return [one for status, one in responses.items() if status.startswith("2")]


def test_what_takes_post_is_a_change_or_said_to_be_none() -> None:
    principals = [row for row in ROUTES if isinstance(row.allowed, Role)]
    signed_in = [row for row in CONSOLE_ROUTES if row.role is not None]
    for row in (*principals, *signed_in):
        expected = row.method == "POST" and row.path not in ASKED_WITH_POST
        assert row.changes is expected, row.path


def test_every_change_documents_its_place_in_the_log_and_nothing_else_does() -> None:
    documents = [(document("1"), sum(row.changes for row in ROUTES))]
    console = [row for row in CONSOLE_ROUTES if row.path.startswith(JSON_BELOW)]
    documents.append((console_document("1", console), sum(row.changes for row in console)))
    for described, expected in documents:
        with_seq = 0
        for path in described["paths"].values():
            for method, operation in path.items():
                for answer in good_answers(operation):
                    assert REQUEST_ID_HEADER in answer["headers"]
                    assert method == "post" or SEQ_HEADER not in answer["headers"]
                    with_seq += SEQ_HEADER in answer["headers"]
        assert with_seq == expected


async def ask_as_operator(fleet: RealFleet, path: str, body: object, key: str = "") -> RawAnswer:
    headers = {"Authorization": f"Bearer {fleet.token}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    sent = json.dumps(body).encode()
    return await ask(fleet.server.admin_url, "POST", path, sent, headers)


GRANT = {"run_id": "run-1", "tool_name": "t", "principal": "p", "egress_profile": "e"}
KINDS = [
    ("/v1/grants", {**GRANT, "ttl_ms": 60_000}, "grant.created"),
    ("/v1/fleet:freeze", {"reason": "look"}, "fleet.leases_frozen"),
    ("/v1/fleet:unfreeze", {"reason": "looked"}, "fleet.leases_unfrozen"),
    ("/v1/proxies/proxy-1:revoke", {"reason": "old"}, "fleet.proxy_revoked"),
    (
        "/v1/principals",
        {"name": "vera", "roles": ["viewer"], "reason": "new here"},
        "fleet.principal_created",
    ),
    ("/v1/principals/vera:rotate", {"reason": "mailed"}, "fleet.principal_token_replaced"),
    ("/v1/principals/vera:revoke", {"reason": "left"}, "fleet.principal_revoked"),
]


async def test_the_number_is_that_of_the_entry_which_the_change_wrote() -> None:
    async with real_fleet() as fleet:
        for path, body, reason in KINDS:
            answer = await ask_as_operator(fleet, path, body)
            assert answer.status < 300, (path, answer.body)
            seq = int(answer.headers[SEQ_HEADER.lower()])
            (entry,) = await fleet.operator.events(seq - 1, 1)
            assert (entry.seq, entry.reason) == (seq, reason)
            assert entry.detail["request_id"] == answer.headers[REQUEST_ID_HEADER.lower()]


async def test_the_same_again_has_the_same_number_and_a_change_of_nothing_the_last() -> None:
    async with real_fleet() as fleet:
        grant, key = {**GRANT, "ttl_ms": 60_000}, "k" * 20
        first = await ask_as_operator(fleet, "/v1/grants", grant, key)
        seq = int(first.headers[SEQ_HEADER.lower()])
        other = await ask_as_operator(fleet, "/v1/grants", {**grant, "run_id": "run-2"})
        assert int(other.headers[SEQ_HEADER.lower()]) == seq + 1
        again = await ask_as_operator(fleet, "/v1/grants", grant, key)
        assert (again.body, int(again.headers[SEQ_HEADER.lower()])) == (first.body, seq)
        nothing = await ask_as_operator(fleet, "/v1/reference-values", {})
        assert int(nothing.headers[SEQ_HEADER.lower()]) == fleet.service.last_event_seq


async def test_each_of_many_changes_at_once_has_the_number_of_its_own_entry() -> None:
    async with real_fleet() as fleet:
        bodies = [{**GRANT, "run_id": f"run-{number}", "ttl_ms": 60_000} for number in range(64)]
        answers = await asyncio.gather(
            *(ask_as_operator(fleet, "/v1/grants", body) for body in bodies)
        )
        entries = {entry.seq: entry for entry in await fleet.operator.events(0, 1000)}
        for answer in answers:
            entry = entries[int(answer.headers[SEQ_HEADER.lower()])]
            assert entry.detail["request_id"] == answer.headers[REQUEST_ID_HEADER.lower()]
        assert fleet.service.last_event_seq == max(entries)


async def test_what_is_read_after_the_number_of_a_change_came_after_it() -> None:
    async with real_fleet() as fleet:
        await fleet.operator.create_grant(GrantRequest(**GRANT, ttl_ms=60_000))
        seq = fleet.operator.last_seq
        assert seq is not None
        waiting = spawn(fleet.operator.events(seq, wait_s=60), "waiting")
        again = GrantRequest(**{**GRANT, "run_id": "run-2"}, ttl_ms=60_000)
        await fleet.operator.create_grant(again)
        assert [entry.seq for entry in await waiting] == [seq + 1]


async def test_a_refused_change_and_a_look_have_no_number(fleet: ServedFleet) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    refused = await ask(
        fleet.admin_url, "POST", "/v1/grants/01ARZ3NDEKTSV4RRFFQ69G5FAV:withdraw", b"{}", headers
    )
    looked = await ask(fleet.admin_url, "GET", "/v1/workers", headers=headers)
    assert (refused.status, looked.status) == (400, 200)
    assert SEQ_HEADER.lower() not in refused.headers | looked.headers


async def test_the_consoles_twin_says_the_same(fleet: ServedFleet) -> None:
    browser = await sign_in(fleet, TOKEN)
    row = next(row for row in CONSOLE_ROUTES if row.path == "/v1/grants")
    answer = await browser.send(row)
    assert answer.status == 201
    assert SEQ_HEADER.lower() in answer.headers
