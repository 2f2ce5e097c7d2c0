"""Calls of the fleet's API as spans: whose trace goes on, and what is told of whom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from palyra_fleet.traces.context import TraceContext, travelling
from palyra_fleet.traces.running import tracing
from palyra_fleet.traces.settings import TraceSettings
from tests.fakes.otlp_receiver import Collector, otlp_receiver
from tests.fakes.raw_http import ask
from tests.fakes.served_fleet import TOKEN, ServedFleet, served_fleet

CLAIMED = TraceContext("a" * 32, "b" * 16)


@asynccontextmanager
async def traced_fleet(ratio: float) -> AsyncIterator[tuple[ServedFleet, Collector]]:
    async with (
        otlp_receiver() as collector,
        tracing(TraceSettings(collector.url, ratio=ratio), "palyra-fleet") as spans,
        served_fleet(spans=spans) as fleet,
    ):
        yield fleet, collector


async def test_a_call_is_told_by_its_route_and_never_by_what_was_asked() -> None:
    async with traced_fleet(1.0) as (fleet, collector):
        token = {"Authorization": f"Bearer {TOKEN}", "traceparent": CLAIMED.traceparent}
        for target, given in (
            (f"/v1/workers/{fleet.worker_id}", token),
            ("/v1/workers?s3cret=1", token),
            ("/v1/workers", {"Authorization": "Bearer s3cret"}),
            ("/s3cret/path", token),
        ):
            await ask(fleet.admin_url, "GET", target, b"", given)
        await ask(fleet.admin_url, "PROPFIND", "/v1/workers", b"", token)
        await collector.until(lambda: len(collector.spans) >= 5)
    told = {
        (one.name, one.attributes["http.response.status_code"], one.attributes.get("palyra.reason"))
        for one in collector.spans
    }
    assert told == {
        ("GET /v1/workers/{worker_id}", 200, None),
        ("GET /v1/workers", 400, "api.query_invalid"),
        ("GET /v1/workers", 401, "api.token_refused"),
        ("GET", 404, "api.not_found"),
        ("_OTHER", 405, "api.method_not_allowed"),
    }
    raw = b"".join(collector.raw)
    assert b"s3cret" not in raw.lower() and TOKEN.encode() not in raw
    assert {one.kind for one in collector.spans} == {"server"}
    # nobody goes on with a trace that an operator names
    assert not [one for one in collector.spans if one.parent_id or one.trace_id == CLAIMED.trace_id]


async def test_the_trace_of_a_proxy_goes_on_whatever_the_ratio_and_a_workers_does_not() -> None:
    async with traced_fleet(0.0) as (fleet, collector):
        async with fleet.as_proxy() as proxy, fleet.as_worker() as worker:
            with travelling(CLAIMED):
                await worker.issue_nonce()
                await proxy.evidence_chain()
            with travelling(TraceContext("c" * 32, "d" * 16, is_sampled=False)):
                await proxy.evidence_chain()
            await proxy.evidence_chain()
        await collector.until(lambda: bool(collector.spans))
    (one,) = collector.spans
    assert (one.trace_id, one.parent_id) == (CLAIMED.trace_id, CLAIMED.span_id)
    assert one.name == "GET /v1/proxy/chain"
