"""One decision id from a worker's refused request to its quarantine, through real programs, and
nothing secret in anything they wrote."""

import json
import signal
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.apart import PROXY_NAME
from tests.e2e.place import EGRESS, FLEET, FREE, METADATA_URL, Place, ask_proxy
from tests.e2e.programs import Program
from tests.fakes.otlp_receiver import Collector, otlp_receiver
from tests.fakes.raw_http import ask
from tests.fakes.until import until

JSON_LOG = ("--log-format", "json", "--log-level", "info")


def lines(program: Program) -> list[dict[str, Any]]:
    """Everything it wrote to stderr, which must be whole lines of JSON."""
    assert program.out.text == ""
    return [json.loads(line) for line in program.err.text.splitlines()]


def about(program: Program, action: str) -> list[dict[str, Any]]:
    return [line for line in lines(program) if line.get("event.action") == action]


def announced(program: Program, label: str) -> str:
    said = [str(line["message"]) for line in lines(program)]
    return next(text for text in said if text.startswith(label)).removeprefix(label).strip()


async def started(place: Place, collector: Collector) -> tuple[Program, Program]:
    """A fleet and a proxy of their own, both with JSON logs and traces of what violates alone: one
    by flags, one by environment."""
    traces = ("--otlp-endpoint", collector.url, "--trace-ratio", "0")
    fleet = await place.programs.start(
        *(FLEET, "serve", "--admin", FREE, *JSON_LOG, *traces), environment=place.environment
    )
    await until("the fleet serves", lambda: "operator token" in fleet.err.text)
    state = place.directory / "proxy"
    key = await place.egress("proxy", "key", "--state-dir", state)
    await place.fleet("proxy", "enrol", PROXY_NAME, key.out.strip())
    by_environment = {
        "PALYRA_EGRESS_PROXY__SERVE__LOG_FORMAT": "json",
        "PALYRA_EGRESS_PROXY__SERVE__LOG_LEVEL": "info",
        "PALYRA_EGRESS_PROXY__SERVE__OTLP_ENDPOINT": collector.url,
        "PALYRA_EGRESS_PROXY__SERVE__TRACE_RATIO": "0",
    }
    proxy = await place.programs.start(
        *(EGRESS, "proxy", "serve", *place.proxy_arguments()),
        *("--state-dir", state, "--name", PROXY_NAME),
        *("--fleet-socket", place.home / "run" / "fleet.sock"),
        environment={**place.environment, **by_environment},
    )
    await until("the proxy serves", lambda: "worker bundle" in proxy.err.text)
    return fleet, proxy


async def run_of(place: Place, proxy: Program) -> Program:
    """A worker that sleeps; its environment, with the credential, on its first line."""
    launcher = place.directory / "launcher.key"
    key = await place.fleet("launcher", "key", launcher)
    await place.fleet("launcher", "enrol", "launcher-1", key.out.strip())
    await place.fleet("reference", "add", "--measure", "/bin/sh")
    await place.fleet(
        *("grant", "create", "run-1", "--tool", "sh", "--principal", "tests", "--profile", "api")
    )
    return await place.programs.start(
        *(FLEET, "worker", "run", "--socket", place.home / "run" / "fleet.sock"),
        *("--proxy", announced(proxy, "proxy").removeprefix("http://")),
        *("--launcher-key", launcher, "--run-id", "run-1"),
        *("--ca", announced(proxy, "worker CA"), "--ca-bundle", announced(proxy, "worker bundle")),
        *(*JSON_LOG, "--", "/bin/sh", "-c", 'echo "$HTTP_PROXY"; exec sleep 600'),
        environment=place.worker_environment,
    )


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with otlp_receiver() as made:
        yield made


async def test_one_id_leads_from_the_workers_refusal_to_its_quarantine(
    place: Place, collector: Collector
) -> None:
    fleet, proxy = await started(place, collector)
    worker = await run_of(place, proxy)
    credentials = await worker.line(0)
    proxy_url = announced(proxy, "proxy")
    refused = await ask_proxy(proxy_url, METADATA_URL, credentials)
    assert refused is not None and refused.reason == "egress.metadata_target"
    decision_id = refused.headers["x-palyra-decision"]
    assert json.loads(refused.body)["decision_id"] == decision_id

    await until("the fleet's log tells", lambda: about(fleet, "worker.quarantined_by_egress"))
    (in_proxys_log,) = about(proxy, "request-refused")[-1:]
    (in_fleets_log,) = about(fleet, "worker.quarantined_by_egress")
    audit = (place.directory / "proxy" / "audit.jsonl").read_text()
    in_audit = [json.loads(line) for line in audit.splitlines() if decision_id in line]
    (event,) = await place.events("worker.quarantined_by_egress")
    (kept,) = await place.violations()
    (record,) = await place.workers()
    assert [
        in_proxys_log["palyra.decision.id"],
        in_fleets_log["palyra.decision.id"],
        in_audit[0]["decision_id"],
        event.detail["decision_id"],
        kept.payload.decision_id,
        record.quarantine_decision_id,
    ] == [decision_id] * 6
    assert decision_id in await investigation_page(place, record.worker_id)
    await worker.ended()
    nothing_secret(place, [fleet, proxy, worker], credentials)
    await one_trace(collector, decision_id)
    assert collector.spans[0].trace_id == in_proxys_log["trace.id"] == in_fleets_log["trace.id"]
    assert credentials.rpartition("@")[0].rpartition(":")[2].encode() not in b"".join(collector.raw)
    for program in (proxy, fleet):
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
        assert lines(program)[-1]["log.level"] == "info"


async def one_trace(collector: Collector, decision_id: str) -> None:
    """From the worker's request over the proxy's judgement and evidence to the quarantine."""
    await collector.until(lambda: len(collector.spans) == 5)
    assert len({one.trace_id for one in collector.spans}) == 1
    by_name = {(one.service, one.name): one for one in collector.spans}
    chain = [
        by_name["palyra-egress", "GET"],
        by_name["palyra-egress", "evidence"],
        by_name["palyra-fleet", "POST /v1/proxy/violations"],
        by_name["palyra-fleet", "quarantine"],
    ]
    above = ["", *(one.span_id for one in chain)]
    assert [one.parent_id for one in chain] == above[:-1]
    assert by_name["palyra-egress", "judge"].parent_id == chain[0].span_id
    for one in (chain[0], chain[3]):
        assert one.attributes["palyra.decision.id"] == decision_id
    assert chain[1].attributes["palyra.outcome"] == "quarantined"


async def investigation_page(place: Place, worker_id: str) -> str:
    """The console's page about the worker, by a session of its own."""
    url = (place.home / "admin.url").read_text().strip()
    token = (place.home / "operator.token").read_text().strip()
    body = json.dumps({"token": token}).encode()
    json_type = {"Content-Type": "application/json", "Origin": url, "Host": urlsplit(url).netloc}
    signed_in = await ask(url, "POST", "/console/v1/auth/login", body, json_type)
    assert signed_in.status == 200, signed_in.body
    cookie = signed_in.headers["set-cookie"].split(";")[0]
    page = await ask(url, "GET", f"/console/workers/{worker_id}", b"", {"Cookie": cookie})
    assert page.status == 200
    return page.body.decode()


def nothing_secret(place: Place, programs: list[Program], credentials: str) -> None:
    """Every secret of this installation against everything that was logged."""
    secret = credentials.rpartition("@")[0].rpartition(":")[2]
    assert len(secret) > 30
    found = {"the egress secret": secret}
    for path in place.directory.rglob("*"):
        if path.is_file() and path.suffix in {".token", ".key"}:
            found[path.name] = path.read_text(errors="replace").strip()
        if path.is_file() and path.suffix == ".pem" and "PRIVATE" in path.read_text():
            found[path.name] = path.read_text().split("\n")[1]
    assert {"operator.token", "launcher.key", "proxy.key"} <= found.keys()
    for program in programs:
        for name, value in found.items():
            assert value not in program.err.text, name
