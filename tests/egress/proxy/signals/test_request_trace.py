"""A request as a trace, over real sockets to a real receiver: what is told, and what never."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.http.trace_headers import TraceHeaders
from palyra_fleet.traces.settings import TraceSettings
from tests.fakes.log_lines import json_lines
from tests.fakes.otlp_receiver import Collector, Told, otlp_receiver
from tests.fakes.proxy_harness import (
    LEASE,
    SECRET,
    WORKER,
    Harness,
    basic,
    proxy_harness,
    read_reply,
    read_to_end,
)
from tests.fakes.upstream import RecordingUpstream, recording_upstream

POLICY = """\
version: 1
name: test
rules:
  - id: api
    hosts: [api.example]
    ports: [{port}]
    private: [127.0.0.0/8]
  - id: plain
    hosts: [plain.example, closed.example]
    schemes: [http]
    ports: [{plain}, 9]
    private: [127.0.0.0/8]
  - id: sealed
    hosts: [sealed.example]
    ports: [{port}]
    private: [127.0.0.0/8]
    tls: tunnel
profiles:
  test: [api, plain, sealed]
violations:
  quarantine: [metadata_target]
"""
HOSTS = "127.0.0.1 api.example plain.example sealed.example closed.example\n"
CLAIMED = "00-aaaabbbbccccddddaaaabbbbccccdddd-1111222233334444-01"


class World:
    """A proxy that tells its traces, what tells them, and two servers."""

    def __init__(
        self,
        harness: Harness,
        collector: Collector,
        plain: RecordingUpstream,
        secure: RecordingUpstream,
        ca_file: Path,
    ) -> None:
        self.harness, self.collector = harness, collector
        self.plain, self.secure, self.ca_file = plain, secure, ca_file

    async def ask(self, url: str, *headers: str) -> Any:
        lines = [
            f"GET {url} HTTP/1.1",
            f"Host: {url.split('/')[2]}",
            f"Proxy-Authorization: {basic()}",
            *headers,
        ]
        return await self.harness.send("\r\n".join([*lines, "", ""]).encode())

    async def told(self, count: int) -> list[Told]:
        """The spans, once so many are there."""
        await self.collector.until(lambda: len(self.collector.spans) >= count)
        return self.collector.spans

    @property
    def here(self) -> str:
        return f"http://plain.example:{self.plain.port}"


@asynccontextmanager
async def world(directory: Path, ratio: float = 1.0, **settings: Any) -> AsyncIterator[World]:
    ca = UpstreamCa.create(directory / "ca")
    async with (
        otlp_receiver() as collector,
        recording_upstream() as plain,
        recording_upstream(ca.server_context("api.example", "sealed.example")) as secure,
        proxy_harness(
            directory / "proxy",
            POLICY.format(port=secure.port, plain=plain.port),
            HOSTS,
            ca.ca_file,
            traces=TraceSettings(collector.url, ratio=ratio),
            **settings,
        ) as harness,
    ):
        yield World(harness, collector, plain, secure, ca.ca_file)


def over_sealed(spans: list[Told]) -> list[Told]:
    """The root of the tunnel that was passed on, once it is over."""
    return [
        one
        for one in spans
        if (one.name, one.parent_id, one.attributes.get("server.address"))
        == ("CONNECT", "", "sealed.example")
    ]


def children(spans: list[Told], parent: Told) -> dict[str, Told]:
    return {one.name: one for one in spans if one.parent_id == parent.span_id}


async def test_an_allowed_request_is_one_trace_from_judging_to_the_servers_answer(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as at:
        headers = ("X-Given: h34der", f"traceparent: {CLAIMED}")
        answer = await at.ask(f"{at.here}/p4th?q=qu3ry", *headers)
        assert answer.status == 200
        spans = await at.told(5)
        (verdict,) = at.harness.verdicts()
    assert len({one.trace_id for one in spans}) == 1
    (root,) = [one for one in spans if not one.parent_id]
    below = children(spans, root)
    assert set(below) == {"judge", "GET"}
    assert set(children(spans, below["judge"])) == {"resolve"}
    assert set(children(spans, below["GET"])) == {"dial"}
    assert (root.kind, below["GET"].kind) == ("server", "client")
    assert root.service == "palyra-egress"
    assert root.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/p4th",
        "server.address": "plain.example",
        "server.port": at.plain.port,
        "palyra.decision.id": verdict["decision_id"],
        "palyra.effect": "allow",
        "palyra.reason": "egress.allowed",
        "palyra.consequence": "none",
        "palyra.rule.id": "plain",
        "palyra.policy.digest": verdict["policy_digest"],
        "palyra.worker.id": WORKER,
        "palyra.lease.id": LEASE,
        "palyra.run.id": "run-1",
        "palyra.profile": "test",
        "palyra.proxy": "proxy-local",
        "palyra.outcome": "complete",
        "palyra.bytes.out": 0,
        "palyra.bytes.in": 5,
    }
    assert below["GET"].attributes["network.peer.address"] == "127.0.0.1"
    for one in spans:
        assert one.span.start_time_unix_nano <= one.span.end_time_unix_nano
        assert one.span.start_time_unix_nano >= root.span.start_time_unix_nano
    raw = b"".join(at.collector.raw)
    for secret in (b"qu3ry", b"h34der", SECRET.encode(), basic().encode()):
        assert secret not in raw


async def test_a_workers_own_trace_becomes_a_link_and_passes_on_or_is_dropped(
    tmp_path: Path,
) -> None:
    given = (f"traceparent: {CLAIMED}", "tracestate: a=1", "baggage: user=1", "X-Kept: 1")
    for treatment, passes in ((TraceHeaders.PASS, True), (TraceHeaders.DROP, False)):
        async with world(tmp_path / treatment.value, trace_headers=treatment) as at:
            assert (await at.ask(f"{at.here}/", *given)).status == 200
            assert (await at.ask(f"{at.here}/", f"traceparent: {CLAIMED[:-1]}")).status == 200
            roots = [one for one in await at.told(10) if not one.parent_id]
            received = bytes(at.plain.received).lower().partition(b"\r\n\r\n")[0]
        assert b"x-kept: 1" in received
        for name in (b"traceparent", b"tracestate", b"baggage"):
            assert (name in received) is passes
        linked = [[link.trace_id.hex() for link in one.span.links] for one in roots]
        assert sorted(linked) == [[], ["aaaabbbbccccddddaaaabbbbccccdddd"]]
        assert "aaaabbbbccccddddaaaabbbbccccdddd" not in {one.trace_id for one in roots}


async def test_requests_in_an_inspected_tunnel_and_a_tunnel_that_is_passed_on(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as at:
        authority = f"api.example:{at.secure.port}"
        _, reader, writer = await at.harness.tunnel(authority)
        for _ in range(2):
            writer.write(f"GET /a HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            answer = await read_reply(reader)
            assert answer is not None and answer.status == 200
        writer.close()
        sealed = f"sealed.example:{at.secure.port}"
        _, reader, writer = await at.harness.tunnel(sealed, roots=at.ca_file)
        writer.write(f"GET /a HTTP/1.1\r\nHost: {sealed}\r\nConnection: close\r\n\r\n".encode())
        assert b"hello" in await read_to_end(reader, b"hello")
        writer.close()
        await at.collector.until(lambda: bool(over_sealed(at.collector.spans)))
        spans = at.collector.spans
    inspected = [one for one in spans if one.attributes.get("server.address") == "api.example"]
    (connect,) = [one for one in inspected if one.name == "CONNECT"]
    assert connect.attributes["http.response.status_code"] == 200
    first, second = [one for one in inspected if one.name == "GET" and one.kind == "client"]
    assert set(children(spans, first)) == {"dial", "tls handshake"}
    assert children(spans, second) == {}  # over the same connection
    assert len({connect.trace_id, first.trace_id, second.trace_id}) == 3
    (passed_on,) = over_sealed(spans)
    assert int(passed_on.attributes["palyra.bytes.in"]) > 0


async def test_a_server_that_cannot_be_reached_is_an_error_of_its_dial(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        answer = await at.ask("http://closed.example:9/")
        assert answer.status == 502
        spans = await at.told(5)
    failed = {one.name: one.attributes["error.type"] for one in spans if one.is_error}
    assert failed == {
        "dial": "egress.upstream_unreachable",
        "GET": "egress.upstream_unreachable",
    }


async def test_a_violation_is_traced_whatever_the_ratio_and_its_line_names_the_trace(
    tmp_path: Path,
) -> None:
    with json_lines("palyra_egress.proxy.signals.refusal_lines") as found:
        async with world(tmp_path, ratio=0.0) as at:
            assert (await at.ask(f"{at.here}/")).status == 200
            refused = await at.ask("http://elsewhere.example/")
            violation = await at.ask("http://169.254.169.254/latest/meta-data?k=qu3ry")
            assert (refused.status, violation.status) == (403, 403)
            spans = await at.told(2)
        assert not at.harness.core.signals.counts.spans.failed
    (root,) = [one for one in spans if not one.parent_id]
    assert {one.trace_id for one in at.collector.spans} == {root.trace_id}
    assert root.attributes["palyra.decision.id"] == violation.headers["x-palyra-decision"]
    assert root.attributes["palyra.consequence"] == "quarantine"
    assert root.attributes["http.response.status_code"] == 403
    assert not root.is_error  # that a worker is refused is no fault
    assert b"qu3ry" not in b"".join(at.collector.raw)
    assert [line.get("trace.id") for line in found] == [None, root.trace_id]


async def test_a_receiver_that_stands_still_holds_up_no_request(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.collector.gate.clear()
        for _ in range(20):
            assert (await at.ask(f"{at.here}/")).status == 200
        await at.collector.until(lambda: at.collector.asked == 1)
        for _ in range(20):
            assert (await at.ask(f"{at.here}/")).status == 200
        counts = at.harness.core.signals.counts.spans
        assert (counts.sent, counts.dropped) == (0, 0)
        assert counts.waiting > 0
        assert b'palyra_egress_trace_spans_total{outcome="sent"} 0.0' in (
            at.harness.proxy.enforcement.told.metrics()
        )
        at.collector.gate.set()
        await at.told(1)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_without_an_endpoint_nothing_is_told(tmp_path: Path, ratio: float) -> None:
    async with (
        recording_upstream() as plain,
        proxy_harness(
            tmp_path,
            POLICY.format(port=1, plain=plain.port),
            HOSTS,
            traces=TraceSettings(ratio=ratio),
        ) as harness,
    ):
        url = f"http://plain.example:{plain.port}/"
        raw = f"GET {url} HTTP/1.1\r\nHost: plain.example:{plain.port}\r\n"
        answer = await harness.send(f"{raw}Proxy-Authorization: {basic()}\r\n\r\n".encode())
        assert answer is not None and answer.status == 200
        assert harness.core.signals.counts.spans is None
        assert b"trace_spans_total{" not in harness.proxy.enforcement.told.metrics()
