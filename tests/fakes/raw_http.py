"""One raw HTTP request over a Unix socket, TCP or TLS: tests send exactly what they mean."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"].startswith("application/problem+json")
        found = json.loads(self.body)
        assert found["status"] == self.status
        assert {"title", "detail", "reason"} <= set(found)
        return found  # type: ignore[no-any-return]

    @property
    def reason(self) -> str:
        return str(self.problem["reason"])


@dataclass(frozen=True, slots=True)
class OverTls:
    """A port of this machine behind TLS, whose certificate must have that name."""

    port: int
    context: ssl.SSLContext
    name: str


type Where = Path | str | OverTls


async def open_connection(where: Where) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(where, OverTls):
        return await asyncio.open_connection(
            "127.0.0.1", where.port, ssl=where.context, server_hostname=where.name
        )
    if isinstance(where, Path):
        return await asyncio.open_unix_connection(str(where))
    parts = urlsplit(where)
    assert parts.hostname is not None
    return await asyncio.open_connection(parts.hostname, parts.port)


async def ask(
    where: Where,
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> RawAnswer:
    """Send one request and read the whole answer; a Host header is added unless given."""
    return await ask_raw(where, request_of(method, target, body, headers))


def request_of(
    method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    """The bytes of one request, after which the connection ends."""
    given = {"Host": "localhost", **(headers or {})}
    if body and "Content-Length" not in given and "Transfer-Encoding" not in given:
        given["Content-Length"] = str(len(body))
    head = f"{method} {target} HTTP/1.1\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return head.encode("latin-1") + b"\r\n" + body


async def ask_raw(where: Where, request: bytes, *, may_go_on: bool = False) -> RawAnswer:
    """Send these bytes and read the whole answer; if it `may_go_on` for ever, only the head of one
    that is no refusal."""
    reader, writer = await open_connection(where)
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            await writer.drain()  # the server may answer and close before it has read everything
        return await _answer(reader, may_go_on=may_go_on)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask_until(
    where: Path | str, target: str, headers: dict[str, str], text: bytes
) -> RawAnswer:
    """GET an answer that does not end, up to these bytes of its body; then go away."""
    head = "".join(
        f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **headers}.items()
    )
    reader, writer = await open_connection(where)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        body = await reader.readuntil(text)
        named = {name.lower(): value for name, value in fields.items()}
        return RawAnswer(int(status_line.split()[1]), named, body)
    finally:
        writer.close()


async def ask_with_pause(
    where: Where,
    target: str,
    body: bytes,
    headers: dict[str, str],
    before_the_body: Callable[[], Awaitable[object]],
) -> RawAnswer:
    """POST JSON, whose body follows when the server waits for it and the step is done."""
    given = {
        "Host": "localhost",
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Expect": "100-continue",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    reader, writer = await open_connection(where)
    try:
        writer.write(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        await before_the_body()
        writer.write(body)
        return await _answer(reader)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader, *, may_go_on: bool = False) -> RawAnswer:
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if line)
    named = {name.lower(): value for name, value in fields.items()}
    status = int(status_line.split()[1])
    if may_go_on and status < 400:
        body = b""
    elif "content-length" in named:
        body = await reader.readexactly(int(named["content-length"]))
    else:
        body = await reader.read()
    return RawAnswer(status, named, body)
