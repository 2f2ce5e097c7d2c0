"""Principals over the real admin listener: who may do what, and what the event log says of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ulid import ULID

from palyra_fleet.client import FleetProblem, OperatorClient, WorkerAction
from palyra_fleet.console.auth_calls import SignIn
from palyra_fleet.console.gate import CSRF_HEADER
from palyra_fleet.wire.models import GrantRequest
from palyra_fleet.wire.principal_models import CreatePrincipal, Role
from tests.fakes.raw_http import ask, ask_with_pause
from tests.fakes.real_fleet import RealFleet, real_fleet

GRANT = GrantRequest(
    run_id="run-1", tool_name="sh", principal="ops", egress_profile="default", ttl_ms=60_000
)


@asynccontextmanager
async def made(fleet: RealFleet, name: str, *roles: Role) -> AsyncIterator[OperatorClient]:
    request = CreatePrincipal(name=name, roles=roles, reason="for the test")
    answer = await fleet.operator.create_principal(request)
    async with OperatorClient(fleet.server.admin_url, answer.token) as client:
        yield client


async def test_a_viewer_looks_and_changes_nothing() -> None:
    async with real_fleet() as fleet, made(fleet, "vera", Role.VIEWER) as vera:
        assert await vera.workers() == ()
        before = len(await vera.events(0, 1000))
        for change in (
            vera.create_grant(GRANT),
            vera.act(WorkerAction.QUARANTINE, str(ULID()), "why"),
            vera.create_principal(CreatePrincipal(name="x", roles=(Role.ADMIN,), reason="why")),
        ):
            with pytest.raises(FleetProblem) as refused:
                await change
            assert (refused.value.status, refused.value.reason) == (403, "api.role_refused")
        assert len(await vera.events(0, 1000)) == before


async def test_an_operator_does_not_approve_and_an_approver_does_not_operate() -> None:
    async with (
        real_fleet() as fleet,
        made(fleet, "olga", Role.OPERATOR) as olga,
        made(fleet, "anna", Role.APPROVER) as anna,
    ):
        with pytest.raises(FleetProblem, match="approver"):
            await olga.create_grant(GRANT)
        assert (await anna.create_grant(GRANT)).approved_by == "anna"
        with pytest.raises(FleetProblem, match="operator"):
            await anna.act(WorkerAction.QUARANTINE, str(ULID()), "why")
        with pytest.raises(FleetProblem) as unknown:
            await olga.act(WorkerAction.QUARANTINE, str(ULID()), "why")
        assert unknown.value.reason == "worker.unknown"


async def test_a_token_that_is_taken_back_while_the_body_comes_moves_nothing() -> None:
    async with real_fleet() as fleet:
        asked = CreatePrincipal(name="eve", roles=(Role.ADMIN,), reason="for the test")
        token = (await fleet.operator.create_principal(asked)).token
        heir = CreatePrincipal(name="heir", roles=(Role.ADMIN,), reason="to stay")
        answer = await ask_with_pause(
            fleet.server.admin_url,
            "/v1/principals",
            heir.model_dump_json().encode(),
            {"Authorization": f"Bearer {token}"},
            lambda: fleet.operator.revoke_principal("eve", "stolen"),
        )
        assert (answer.status, answer.reason) == (401, "api.token_refused")
        assert [one.name for one in await fleet.operator.principals()] == ["operator"]


async def test_every_change_records_who_from_where_and_why() -> None:
    async with real_fleet() as fleet, made(fleet, "anna", Role.APPROVER) as anna:
        await anna.create_grant(GRANT)
        created, granted = (await fleet.operator.events(0, 1000))[-2:]
    assert (created.reason, created.actor) == ("fleet.principal_created", "operator")
    assert created.detail["principal"] == "anna"
    assert created.detail["roles"] == "approver"
    assert created.detail["why"] == "for the test"
    assert (granted.reason, granted.actor) == ("grant.created", "anna")
    assert granted.detail["from"] == "127.0.0.1"
    assert granted.detail["request_id"] != created.detail["request_id"]


async def test_what_came_over_the_operators_socket_says_so_by_command_and_by_console() -> None:
    json, host = {"Content-Type": "application/json"}, {"Host": "localhost"}
    console = "/console/v1"
    async with real_fleet() as fleet:
        socket = fleet.home / "run" / "admin.sock"
        async with OperatorClient(socket, fleet.token) as operator:
            await operator.create_grant(GRANT)
        login = SignIn(token=fleet.token).model_dump_json().encode()
        signed_in = await ask(socket, "POST", f"{console}/auth/login", login, {**json, **host})
        cookie = signed_in.headers["set-cookie"].partition(";")[0]
        change = GRANT.model_copy(update={"run_id": "run-2"}).model_dump_json().encode()
        held = {**json, **host, "Cookie": cookie}
        target = f"{console}/grants"
        refused = await ask(socket, "POST", target, change, held)
        held[CSRF_HEADER] = signed_in.json["csrf_token"]
        foreign = await ask(socket, "POST", target, change, {**held, "Origin": "http://other"})
        made_there = await ask(socket, "POST", target, change, held)
        granted = [e for e in await fleet.operator.events(0, 1000) if e.reason == "grant.created"]
    assert (refused.status, foreign.status, made_there.status) == (403, 403, 201)
    assert [event.detail["from"] for event in granted] == ["operators' socket"] * 2


async def test_an_answer_names_the_request_id_that_its_events_carry() -> None:
    async with real_fleet() as fleet:
        headers = {
            "Authorization": f"Bearer {fleet.token}",
            "Content-Type": "application/json",
        }
        body = GRANT.model_dump_json().encode()
        answer = await ask(fleet.server.admin_url, "POST", "/v1/grants", body, headers)
        (event,) = [e for e in await fleet.operator.events(0, 1000) if e.reason == "grant.created"]
    assert answer.status == 201
    assert answer.headers["palyra-request-id"] == event.detail["request_id"]


async def test_a_revoked_or_replaced_token_is_worth_nothing_at_once() -> None:
    async with real_fleet() as fleet, made(fleet, "vera", Role.VIEWER) as vera:
        assert (await vera.who_am_i()).roles == (Role.VIEWER,)
        fresh = await fleet.operator.rotate_principal("vera", "it was mailed")
        with pytest.raises(FleetProblem, match="token"):
            await vera.who_am_i()
        async with OperatorClient(fleet.server.admin_url, fresh.token) as again:
            assert (await again.who_am_i()).name == "vera"
            await fleet.operator.revoke_principal("vera", "left")
            with pytest.raises(FleetProblem, match="token"):
                await again.who_am_i()
        last = [event.reason for event in (await fleet.operator.events(0, 1000))[-2:]]
    assert last == ["fleet.principal_token_replaced", "fleet.principal_revoked"]


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [("operator", 409, "principal.refused"), ("nobody", 404, "principal.unknown")],
)
async def test_who_cannot_be_changed_is_refused(name: str, status: int, reason: str) -> None:
    async with real_fleet() as fleet:
        for change in (fleet.operator.revoke_principal, fleet.operator.rotate_principal):
            with pytest.raises(FleetProblem) as refused:
                await change(name, "why")
            assert (refused.value.status, refused.value.reason) == (status, reason)


async def test_no_token_and_no_digest_of_one_is_in_the_event_log() -> None:
    async with real_fleet() as fleet:
        request = CreatePrincipal(name="vera", roles=(Role.VIEWER,), reason="look")
        made_now = await fleet.operator.create_principal(request)
        log = "".join(event.model_dump_json() for event in await fleet.operator.events(0, 1000))
        digests = [principal.token_sha256 for principal in fleet.principals.all()]
    assert made_now.token not in log + repr(made_now)
    assert not any(digest in log for digest in digests)
