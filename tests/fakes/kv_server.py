"""A KV server over real HTTP(S), as HashiCorp Vault answers, with faults that a test chooses.

`secrets` maps `mount/path` to the fields of a secret. A mount in `version_1` answers as KV version
1. A fault is set by assigning `fault`; `asked` holds the path of every question that came with the
right token, and `arrived` is set by each.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "hvs.test-token-0123456789"

type Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class KvServer:
    """The server's state, which tests change while it runs."""

    url: str = ""
    token: str = TOKEN
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    version_1: frozenset[str] = frozenset({"kv1"})
    lease_duration_s: int = 0
    deletion_time: str = ""
    destroyed: bool = False
    fault: Fault | None = None
    asked: list[str] = field(default_factory=list)
    namespaces: list[str | None] = field(default_factory=list)
    refused_tokens: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        mount, _, rest = request.match_info["rest"].partition("/")
        self.arrived.set()
        if request.headers.get("X-Vault-Token") != self.token:
            self.refused_tokens += 1
            return web.json_response({"errors": ["permission denied"]}, status=403)
        self.asked.append(request.path)
        self.namespaces.append(request.headers.get("X-Vault-Namespace"))
        if self.fault is not None:
            return await self.fault(request)
        if mount in self.version_1:
            return self._version_1(f"{mount}/{rest}")
        if not rest.startswith("data/"):
            return web.json_response({"errors": []}, status=404)
        return self._version_2(f"{mount}/{rest.removeprefix('data/')}")

    def _version_1(self, path: str) -> web.Response:
        if path not in self.secrets:
            return web.json_response({"errors": []}, status=404)
        answer = {"data": self.secrets[path], "lease_duration": self.lease_duration_s}
        return web.json_response(answer)

    def _version_2(self, path: str) -> web.Response:
        metadata = {"deletion_time": self.deletion_time, "destroyed": self.destroyed, "version": 1}
        if path not in self.secrets:
            return web.json_response({"data": {"data": None, "metadata": metadata}}, status=404)
        data = None if self.destroyed else self.secrets[path]
        answer = {"lease_duration": 0, "data": {"data": data, "metadata": metadata}}
        return web.json_response(answer)


def status(code: int, body: str = "{}", **headers: str) -> Fault:
    """Always this answer."""

    async def fault(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=body.encode(), headers=headers)

    return fault


def text(body: str) -> Fault:
    """200 with this body."""
    return status(200, body)


def object_of(value: object) -> Fault:
    """200 with this as JSON."""
    return text(json.dumps(value))


async def endless(request: web.Request) -> web.StreamResponse:
    """A body without an end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


async def silent(_request: web.Request) -> web.StreamResponse:
    """No answer at all."""
    await asyncio.Event().wait()
    raise AssertionError


async def cut_short(request: web.Request) -> web.StreamResponse:
    """A head that promises more than comes."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
    request.transport.close()
    raise ConnectionResetError


async def no_http(request: web.Request) -> web.StreamResponse:
    """Something that is no HTTP."""
    assert request.transport is not None
    request.transport.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    request.transport.close()
    raise ConnectionResetError


@asynccontextmanager
async def kv_server(context: ssl.SSLContext | None = None) -> AsyncIterator[KvServer]:
    """The server on a free port of 127.0.0.1, with TLS if there is a context."""
    state = KvServer()
    application = web.Application()
    application.router.add_get("/v1/{rest:.*}", state.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host, port = runner.addresses[0][:2]
    state.url = f"{'https' if context else 'http'}://{host}:{port}"
    try:
        yield state
    finally:
        await runner.cleanup()
