"""A receiver of traces on loopback: OTLP over HTTP, decoded with OpenTelemetry's own messages.

`status`, `body` and `headers` decide how an export is answered; what was taken (2xx) is in `spans`.
`gate` closed, it reads and does not answer. `is_endless`, an answer goes on until whoever reads it
hangs up, which `cut` counts.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATH = "/v1/traces"


@dataclass
class Told:
    """One span as it arrived."""

    service: str
    span: Span

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def is_error(self) -> bool:
        return self.span.status.code == self.span.status.STATUS_CODE_ERROR

    @property
    def kind(self) -> str:
        return Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_").lower()

    @property
    def attributes(self) -> dict[str, str | int]:
        return {
            one.key: one.value.string_value or one.value.int_value for one in self.span.attributes
        }


@dataclass
class Collector:
    """What came, and how it is answered."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_endless: bool = False
    cut: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    raw: list[bytes] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    spans: list[Told] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with self.came:
            self.asked += 1
            self.raw.append(body)
            self.heads.append({name.lower(): value for name, value in request.headers.items()})
            self.came.notify_all()
        await self.gate.wait()
        if 200 <= self.status < 300:
            self._take(body)
        async with self.came:
            self.came.notify_all()
        if self.is_endless:
            return await self._answer_without_end(request)
        return web.Response(status=self.status, body=self.body, headers=self.headers)

    async def _answer_without_end(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=self.status, headers=self.headers)
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 16_384)
        except ConnectionError:
            async with self.came:
                self.cut += 1
                self.came.notify_all()
        return answer

    def _take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [Told(about["service.name"], span) for span in scope.spans]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self.came:
            await self.came.wait_for(holds)

    def named(self, name: str) -> list[Told]:
        return [one for one in self.spans if one.name == name]


@asynccontextmanager
async def otlp_receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    made = Collector()
    made.gate.set()
    application = web.Application(client_max_size=16 * 1024 * 1024)
    application.router.add_post(PATH, made.receive)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    made.url = f"{scheme}://{host}:{runner.addresses[0][1]}{PATH}"
    try:
        yield made
    finally:
        made.gate.set()
        await runner.cleanup()
