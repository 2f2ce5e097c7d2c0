"""The exporter against a real receiver: what arrives, and what happens if it does not."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.traces import otlp
from palyra_fleet.traces.context import TraceContext
from palyra_fleet.traces.running import tracing
from palyra_fleet.traces.settings import TraceSettings
from palyra_fleet.traces.spans import Attribute, Kind, Spans
from tests.fakes.log_lines import json_lines
from tests.fakes.otlp_receiver import otlp_receiver
from tests.fakes.until import until

LOGGER = "palyra_fleet.traces.otlp"
PARENT = TraceContext("a" * 32, "b" * 16)


@asynccontextmanager
async def spans_to(url: str, **more: object) -> AsyncIterator[Spans]:
    async with tracing(TraceSettings(url, **more), "palyra-test") as spans:  # type: ignore[arg-type]
        assert spans is not None
        yield spans


def tell(spans: Spans, count: int = 1, parent: TraceContext | None = None) -> None:
    for number in range(count):
        facts = {Attribute.STATUS: number, Attribute.PEER: None}
        spans.begin("GET", Kind.CLIENT, 1_000, {}, parent=parent).end(3_000, facts)


async def tried(holds: Callable[[], bool]) -> None:
    """Counts are kept by the exporter's thread, which tells nobody."""
    await until("the exporter has tried", holds, 60.0)


async def test_a_span_arrives_as_it_was_told(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("Authorization: Bearer t0ken\n")
    headers.chmod(0o600)
    async with otlp_receiver() as receiver, spans_to(receiver.url, headers_file=headers) as spans:
        tell(spans, parent=PARENT)
        spans.begin("bad", Kind.SERVER, 1_000, {}, claimed=PARENT).end(2_000, None, "why")
        await receiver.until(lambda: len(receiver.spans) == 2)
    first, bad = receiver.spans
    assert (first.service, first.name, first.kind) == ("palyra-test", "GET", "client")
    assert (first.trace_id, first.parent_id) == (PARENT.trace_id, PARENT.span_id)
    assert (first.span.start_time_unix_nano, first.span.end_time_unix_nano) == (1_000, 3_000)
    assert first.attributes == {"http.response.status_code": 0}  # None is left out
    assert (bad.parent_id, bad.is_error, bad.attributes) == ("", True, {"error.type": "why"})
    assert bad.trace_id != PARENT.trace_id
    assert [link.span_id.hex() for link in bad.span.links] == [PARENT.span_id]
    assert receiver.heads[0]["authorization"] == "Bearer t0ken"
    assert spans.counts.sent == 2


@pytest.mark.parametrize(
    ("status", "location"), [(400, ""), (401, ""), (500, ""), (302, "http://127.0.0.1:9/")]
)
async def test_what_a_receiver_refuses_is_lost_counted_and_told_once(
    status: int, location: str
) -> None:
    with json_lines(LOGGER) as found:
        async with otlp_receiver() as receiver, spans_to(receiver.url) as spans:
            receiver.status, receiver.body = status, b"s3cret words of a receiver"
            receiver.headers = {"Location": location} if location else {}
            for failed in (1, 2):
                tell(spans)
                await until(
                    "the exporter has tried", lambda failed=failed: spans.counts.failed == failed
                )  # type: ignore[misc]
            receiver.status, receiver.headers = 200, {}
            tell(spans)
            await tried(lambda: spans.counts.sent == 1)
    assert [line["message"] for line in found] == [
        "traces are not taken by their receiver: refused",
        "traces are taken by their receiver again",
    ]
    assert receiver.asked == 3  # nothing followed a redirect


async def test_a_receiver_that_is_down_or_that_does_not_answer_costs_nobody_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp, "TRY_WITHIN_S", 0.2)
    async with otlp_receiver() as receiver:
        gone = receiver.url
        with json_lines(LOGGER) as found:
            receiver.gate.clear()
            async with spans_to(receiver.url) as spans:
                tell(spans)
                await tried(lambda: spans.counts.failed == 1)
            receiver.gate.set()
    monkeypatch.setattr(otlp, "TRY_WITHIN_S", 60.0)
    with json_lines(LOGGER) as down:
        async with spans_to(gone) as spans:
            tell(spans)
            await tried(lambda: spans.counts.failed == 1)
    said = [str(line["message"]).rpartition(" ")[2] for line in (*found, *down)]
    assert said == ["late", "unreachable"]


async def test_only_so_many_spans_wait_and_the_rest_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(otlp, "TRY_WITHIN_S", 60.0)
    async with otlp_receiver() as receiver:
        receiver.gate.clear()
        async with spans_to(receiver.url) as spans:
            tell(spans, otlp.MAX_WAITING + 50)
            counts = spans.counts
            assert (counts.accepted, counts.dropped) == (otlp.MAX_WAITING, 50)
            receiver.gate.set()
            await tried(lambda: counts.waiting == 0)
            tell(spans)
            await until(
                "the exporter has tried",
                lambda: counts.sent + counts.failed == otlp.MAX_WAITING + 1,
            )
    assert counts.dropped == 50


async def test_a_receiver_is_trusted_by_its_certificate_and_name(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path)
    with json_lines(LOGGER) as found:
        async with otlp_receiver(ca.server_context("localhost")) as receiver:
            async with spans_to(receiver.url, ca_file=ca.ca_file) as spans:
                tell(spans)
                await receiver.until(lambda: len(receiver.spans) == 1)
            async with spans_to(receiver.url) as strangers:
                tell(strangers)
                await tried(lambda: strangers.counts.failed == 1)
        async with otlp_receiver(ca.server_context("elsewhere.example")) as impostor:
            async with spans_to(impostor.url, ca_file=ca.ca_file) as spans:
                tell(spans)
                await tried(lambda: spans.counts.failed == 1)
            assert impostor.asked == 0
    assert [str(line["message"]).rpartition(" ")[2] for line in found] == ["untrusted"] * 2


@pytest.mark.parametrize("status", [200, 400])
async def test_an_answer_without_end_is_not_read_to_its_end(status: int) -> None:
    """The receiver writes until the exporter hangs up; nothing else ends its answer."""
    async with otlp_receiver() as receiver:
        receiver.is_endless, receiver.status = True, status
        async with spans_to(receiver.url) as spans:
            for tries in (1, 2):
                tell(spans)
                await tried(lambda tries=tries: spans.counts.sent + spans.counts.failed == tries)  # type: ignore[misc]
                await receiver.until(lambda tries=tries: receiver.cut == tries)  # type: ignore[misc]
        assert (spans.counts.sent, receiver.asked) == (2 if status == 200 else 0, 2)


async def test_what_waits_at_the_end_is_sent_and_cookies_are_not_kept() -> None:
    async with otlp_receiver() as receiver:
        receiver.headers = {"Set-Cookie": "a=b"}
        async with spans_to(receiver.url) as spans:
            tell(spans)
            await tried(lambda: spans.counts.sent == 1)
            tell(spans)
        assert len(receiver.spans) == 2
        assert "cookie" not in receiver.heads[1]


async def test_a_stop_does_not_wait_for_a_receiver_that_stands_still() -> None:
    async with otlp_receiver() as receiver:
        receiver.gate.clear()
        async with spans_to(receiver.url) as spans:
            tell(spans, 3)
        assert spans.counts.sent == 0
        assert receiver.spans == []


async def test_the_librarys_own_lines_which_repeat_what_receivers_say_are_not_written() -> None:
    async with otlp_receiver() as receiver, spans_to(receiver.url):
        for name in ("opentelemetry.exporter.otlp", "urllib3.connection"):
            assert not logging.getLogger(name).isEnabledFor(logging.CRITICAL)
