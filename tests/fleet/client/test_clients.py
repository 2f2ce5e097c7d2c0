"""The typed clients: what they send is signed as sent, and every failure is one of two errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ulid import ULID

from palyra_fleet.client import (
    FleetError,
    FleetProblem,
    FleetUnavailable,
    OperatorClient,
    ProxyClient,
    WorkerAction,
    WorkerClient,
)
from palyra_fleet.client.lists import GrantList
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.dsse import VIOLATION_TYPE, seal
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import (
    GrantRequest,
    HeartbeatRequest,
    ReferenceValues,
)
from palyra_fleet.wire.placement_models import OrderKind, WorkerOrder
from tests.fakes.lossy_relay import lossy_relay
from tests.fakes.served_fleet import TOKEN, ServedFleet

KEY = SigningKey.generate()
BEAT = HeartbeatRequest(session_epoch=1, seq=1)


async def test_a_worker_reads_orders_by_long_poll_as_soon_as_they_are_given(
    fleet: ServedFleet,
) -> None:
    async with fleet.as_worker() as worker:
        polling = asyncio.gather(worker.orders(0, 30_000))
        await fleet.service.orders_asked.get()
        await fleet.service.quarantine("operator", fleet.worker_id, "why")
        (orders,) = await polling
        assert orders == (WorkerOrder(seq=1, kind=OrderKind.QUARANTINED, reason="why"),)
        assert await worker.orders(1, 0) == ()


async def test_a_question_that_is_asked_again_since_its_answer_was_lost_is_signed_again(
    fleet: ServedFleet, tmp_path: Path
) -> None:
    async with (
        lossy_relay(fleet.socket_path, tmp_path) as relay,
        WorkerClient(relay.path, fleet.worker_key) as worker,
    ):
        await fleet.service.quarantine("operator", fleet.worker_id, "why")
        relay.lose = b"GET /v1/worker/orders"
        (order,) = await worker.orders(0, 0)
        assert relay.lost.is_set()
        assert order.kind is OrderKind.QUARANTINED


async def test_a_refusal_keeps_status_reason_and_text(fleet: ServedFleet) -> None:
    fleet.service.refuse_with = FleetRefusal(FleetReason.STALE_FENCE, "the fence is stale")
    async with fleet.as_worker() as worker:
        with pytest.raises(FleetProblem) as refused:
            await worker.heartbeat(BEAT)
    problem = refused.value
    assert (problem.status, problem.reason) == (409, "lease.stale_fence")
    assert problem.detail == "the fence is stale"


async def test_evidence_is_handed_in_and_the_same_again_is_a_duplicate(fleet: ServedFleet) -> None:
    envelope = seal(fleet.proxy_key, VIOLATION_TYPE, b"{}")
    async with fleet.as_proxy() as proxy:
        assert not (await proxy.send_violation(envelope)).duplicate
        assert (await proxy.send_violation(envelope)).duplicate
        assert (await proxy.evidence_chain()).seq == 2


async def test_every_call_of_an_operator_reaches_its_command(fleet: ServedFleet) -> None:
    request = GrantRequest(
        run_id="r", tool_name="t", principal="p", egress_profile="e", ttl_ms=1_000
    )
    async with fleet.as_operator() as operator:
        grant = await operator.create_grant(request)
        assert await operator.grants() == (grant,)
        await operator.withdraw_grant(grant.grant_id, "why")
        await operator.add_reference_values(ReferenceValues())
        await operator.violations(fleet.worker_id, 5)
        await operator.drain(fleet.worker_id, "why", 1_000)
        assert await operator.leases(5) == ()
        for action in WorkerAction:
            shown = await operator.act(action, fleet.worker_id, "why")
            assert shown.worker_id == fleet.worker_id
        assert len(await operator.events()) == await operator.verify_events()
        assert (await operator.events(after_seq=1, limit=1))[0].seq == 2
    assert {*WorkerAction, "leases", "create_grant", "withdraw_grant", "drain"} <= set(
        fleet.service.calls
    )


async def test_a_list_is_whole_however_few_fit_on_a_page(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palyra_fleet.client.transport.MAX_ROWS", 2)
    async with fleet.as_operator() as operator:
        for number in range(5):
            request = GrantRequest(
                run_id=f"r-{number}", tool_name="t", principal="p", egress_profile="e", ttl_ms=1_000
            )
            await operator.create_grant(request)
        asked = fleet.service.calls.count("grants")
        found = [one.grant_id for one in await operator.grants()]
        assert len(found) == 5 and found == sorted(found, reverse=True)
        assert fleet.service.calls.count("grants") == asked + 3
        listed = await operator.every("/v1/grants", GrantList, 3)
        assert [one.grant_id for one in listed] == found[:3]


async def test_an_operator_of_something_unknown_gets_a_problem(fleet: ServedFleet) -> None:
    async with fleet.as_operator() as operator:
        with pytest.raises(FleetProblem) as refused:
            await operator.worker(str(ULID()))
    assert refused.value.status == 404


async def test_nobody_listening_is_unavailable(tmp_path: Path) -> None:
    async with WorkerClient(tmp_path / "none.sock", KEY) as worker:
        with pytest.raises(FleetUnavailable, match="cannot connect"):
            await worker.heartbeat(BEAT)
    async with OperatorClient("http://127.0.0.1:9", TOKEN) as operator:
        with pytest.raises(FleetUnavailable, match="cannot connect"):
            await operator.workers()


@asynccontextmanager
async def answering(path: Path, answer: bytes | None) -> AsyncIterator[Path]:
    """A listener that answers everything with these bytes, or with silence."""
    connections: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            writer.close()

    async with await asyncio.start_unix_server(talk, str(path)):
        yield path
        for writer in connections:
            writer.close()


def http(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


STRANGE = [
    pytest.param(b"", id="a closed connection"),
    pytest.param(b"\x16\x03\x01", id="TLS"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", id="half an answer"),
    pytest.param(http("200 OK", b"<html>"), id="a page"),
    pytest.param(http("200 OK", b'{"state": "available"}'), id="a missing field"),
    pytest.param(
        http("200 OK", b'{"state":"a","heartbeat_within_ms":1,"stop_leases":[],"s3cr3t":1}'),
        id="an unknown field",
    ),
    pytest.param(http("502 Bad Gateway", b"<html>s3cr3t"), id="another program's error"),
    pytest.param(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/s3cr3t\r\nContent-Length: 0\r\n\r\n",
        id="a redirect",
    ),
    pytest.param(http("200 OK", b" " * (16 * 1024 * 1024 + 1)), id="an endless answer"),
]


@pytest.mark.parametrize("answer", STRANGE)
async def test_an_answer_that_is_not_the_fleets_is_unavailable(
    tmp_path: Path, answer: bytes
) -> None:
    async with (
        answering(tmp_path / "s.sock", answer) as path,
        WorkerClient(path, KEY) as worker,
    ):
        with pytest.raises(FleetUnavailable) as caught:
            await worker.heartbeat(BEAT)
    assert "s3cr3t" not in str(caught.value)


async def test_silence_is_unavailable_after_the_time_out(tmp_path: Path) -> None:
    async with (
        answering(tmp_path / "s.sock", None) as path,
        WorkerClient(path, KEY, timeout_ms=50) as worker,
    ):
        with pytest.raises(FleetUnavailable, match="no answer in time"):
            await worker.heartbeat(BEAT)


@pytest.mark.parametrize("line", [b"{}\n", b"not json\n", b"\n", b'{"kind":"grant"}\n'])
async def test_a_line_of_the_view_that_is_no_message_ends_it(tmp_path: Path, line: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n" + line
    async with answering(tmp_path / "s.sock", answer) as path, ProxyClient(path, KEY) as proxy:
        with pytest.raises(FleetUnavailable):
            async for _ in proxy.view():
                raise AssertionError("nothing of this may be believed")


async def test_settings_of_the_environment_do_not_lead_elsewhere(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with fleet.as_operator() as operator:
        assert len(await operator.workers()) == 1


async def test_no_repr_shows_a_token_or_a_key(fleet: ServedFleet) -> None:
    async with fleet.as_operator() as operator, fleet.as_worker() as worker:
        assert TOKEN not in repr(operator) + repr(vars(operator))
        assert "PRIVATE" not in repr(worker) + repr(vars(worker))


def test_both_errors_are_errors_of_the_fleet() -> None:
    assert issubclass(FleetUnavailable, FleetError)
    assert issubclass(FleetProblem, FleetError)


async def test_an_operator_gets_every_worker_page_by_page(
    fleet: ServedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palyra_fleet.client.transport.MAX_ROWS", 2)
    for _ in range(4):
        fleet.service.add_worker(SigningKey.generate().public_key)
    fleet.service.calls.clear()
    async with fleet.as_operator() as operator:
        found = [one.worker_id for one in await operator.workers()]
    assert found == sorted(fleet.service.known, reverse=True)
    assert fleet.service.calls == ["workers"] * 3
