"""gRPC through the proxy: the real client and the real server, with nothing of ours between them.

A call is a POST to `/package.Service/Method`, judged by its path like any other; what makes it gRPC
are HTTP/2, trailers and streams that are open both ways at once.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.wire.grpc_runtime import grpc
from tests.fakes.proxy_harness import LEASE, SECRET, WORKER, Harness, proxy_harness

aio = grpc.aio

POLICY: Final = """\
version: 1
name: grpc
rules:
  - id: service
    hosts: [api.example]
    ports: [{port}]
    methods: [POST]
    paths: [/pkg.Service/**]
    private: [127.0.0.0/8]
profiles: {{test: [service]}}
"""


class Service(grpc.GenericRpcHandler):
    """Methods over plain bytes: Echo, Chat (both ways), Fail, Slow, Many."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        self.asked.append(method)
        self.metadata = dict(handler_call_details.invocation_metadata)
        match method.rpartition("/")[2]:
            case "Echo":
                return grpc.unary_unary_rpc_method_handler(self._echo)
            case "Chat":
                return grpc.stream_stream_rpc_method_handler(self._chat)
            case "Fail":
                return grpc.unary_unary_rpc_method_handler(self._fail)
            case "Slow":
                return grpc.unary_unary_rpc_method_handler(self._slow)
            case "Many":
                return grpc.unary_stream_rpc_method_handler(self._many)
        return None

    async def _echo(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-end", "done"),))
        return request

    async def _chat(self, requests: Any, _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"re:" + request

    async def _fail(self, _request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return b""

    async def _slow(self, _request: bytes, _context: Any) -> bytes:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def _many(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for _ in range(int(request)):
            yield b"x" * 100_000


@dataclass
class GrpcWorld:
    harness: Harness
    service: Service
    channel: aio.Channel

    def call(self, method: str) -> Any:
        return self.channel.unary_unary(f"/pkg.Service/{method}")


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[GrpcWorld]:
    ca = UpstreamCa.create(tmp_path / "ca")
    pem = ca.issue("api.example").read_bytes()  # the key first, then its certificate
    key, begin, certificate = pem.partition(b"-----BEGIN CERTIFICATE-----")
    service = Service()
    server = aio.server()
    server.add_generic_rpc_handlers((service,))
    tls = grpc.ssl_server_credentials([(key, begin + certificate)])
    port = server.add_secure_port("127.0.0.1:0", tls)
    await server.start()
    policy = POLICY.format(port=port)
    async with proxy_harness(
        tmp_path / "proxy", policy, "127.0.0.1 api.example\n", ca.ca_file
    ) as harness:
        host, proxy_port = harness.proxy.address
        root = harness.proxy.enforcement.authority.root_path.read_bytes()
        proxy = f"http://{LEASE}:{SECRET}@{host}:{proxy_port}"
        async with aio.secure_channel(
            f"dns:///api.example:{port}",
            grpc.ssl_channel_credentials(root),
            options=[("grpc.http_proxy", proxy)],
        ) as channel:
            yield GrpcWorld(harness, service, channel)
        await server.stop(None)


async def test_a_unary_call_is_carried_with_its_trailers(world):
    call = world.call("Echo")(b"hello", timeout=60)
    assert await call == b"hello"
    assert dict(await call.trailing_metadata())["x-end"] == "done"
    assert await call.code() is grpc.StatusCode.OK
    verdict = world.harness.verdicts()[-1]
    assert verdict["method"] == "POST"
    assert verdict["target"].endswith("/pkg.Service/Echo")


async def test_a_stream_is_open_both_ways_at_once(world):
    call = world.channel.stream_stream("/pkg.Service/Chat")(timeout=60)
    for number in range(20):
        await call.write(b"%d" % number)
        assert await call.read() == b"re:%d" % number
    await call.done_writing()
    assert await call.read() is aio.EOF


async def test_a_long_stream_arrives_whole(world):
    call = world.channel.unary_stream("/pkg.Service/Many")(b"100", timeout=60)
    assert sum([len(part) async for part in call]) == 100 * 100_000


async def test_an_error_that_is_trailers_only_arrives_as_it_is(world):
    with pytest.raises(aio.AioRpcError) as caught:
        await world.call("Fail")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "no such thing"


async def test_a_method_that_the_policy_does_not_name_is_refused(world):
    with pytest.raises(aio.AioRpcError) as caught:
        await world.channel.unary_unary("/other.Service/Echo")(b"", timeout=60)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert world.service.asked == []
    assert await world.call("Echo")(b"still", timeout=60) == b"still"


async def test_a_deadline_ends_the_call_at_the_server_too(world):
    with pytest.raises(aio.AioRpcError) as caught:
        await world.call("Slow")(b"", timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(60):
        await world.service.cancelled.wait()


async def test_a_cancellation_reaches_the_server_and_other_calls_go_on(world):
    call = world.call("Slow")(b"", timeout=60)
    await world.service.started.wait()
    call.cancel()
    async with asyncio.timeout(60):
        await world.service.cancelled.wait()
    assert await world.call("Echo")(b"after", timeout=60) == b"after"
    outcomes = [e["outcome"] for e in world.harness.audit() if e["kind"] == "transfer"]
    assert sorted(outcomes) == ["aborted", "complete"]


async def test_a_quarantine_ends_open_calls(world):
    call = world.call("Slow")(b"", timeout=60)
    await world.service.started.wait()
    world.harness.tell("block", worker_id=WORKER)
    with pytest.raises(aio.AioRpcError):
        await call
    async with asyncio.timeout(60):
        await world.service.cancelled.wait()
