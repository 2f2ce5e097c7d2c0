"""The one way a client talks HTTP to the fleet: bounded, timed, typed, credentials per request.

`FleetClient` sends one JSON request and reads one JSON answer; `stream` yields the lines of an
endless answer. A `Credentials` adds the headers that say who calls, from exactly the bytes that
are sent, and anew each time that they are sent. Every failure of the network or of the answer's
form becomes a FleetUnavailable, every refusal a FleetProblem. Nothing here follows redirects or
reads proxy settings.
"""

import asyncio
import secrets
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlencode

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from palyra_fleet.client.errors import FleetProblem, FleetUnavailable
from palyra_fleet.traces.context import travels
from palyra_fleet.wire.models import Problem
from palyra_fleet.wire.page_models import MAX_ROWS, PageModel

DEFAULT_TIMEOUT_MS: Final = 10_000
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
SOCKET_URL: Final = "http://fleet.palyra.internal"
SERVER_NAME: Final = "palyrad-node-rpc"
"""What the fleet's certificate must carry, whatever its address."""
_FOREIGN: Final = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


@dataclass(frozen=True, slots=True)
class RemoteFleet:
    """A fleet on another machine: `https://HOST:PORT`, and the TLS of this device. `tls` is asked
    for every request, so that a renewed certificate is used from the next connection on."""

    url: str
    tls: Callable[[], ssl.SSLContext] = field(repr=False)


type FleetAddress = Path | RemoteFleet
"""Where workers and proxies find the fleet: a Unix socket of this machine, or another machine."""


class Credentials(Protocol):
    """Says who calls. `target` is the path with its query, as sent."""

    def headers(self, method: str, target: str, body: bytes) -> Mapping[str, str]: ...


def query_target(path: str, **query: str | int | tuple[str, ...] | None) -> str:
    """The path with those query parameters that have a value; a tuple is one for each item."""
    present = {name: value for name, value in query.items() if value not in {None, ()}}
    return f"{path}?{urlencode(present, doseq=True)}" if present else path


class FleetClient:
    """A client of one fleet. Use as `async with`, or `close()` it.

    `where` is a Unix socket, another machine, or the URL of the admin listener on loopback.
    """

    def __init__(
        self,
        where: FleetAddress | str,
        credentials: Credentials,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
    ) -> None:
        self._socket_path = where if isinstance(where, Path) else None
        self._tls = where.tls if isinstance(where, RemoteFleet) else None
        self._base_url = _url_of(where).rstrip("/")
        self._credentials = credentials
        self._timeout_ms = timeout_ms
        self._session: aiohttp.ClientSession | None = None
        self.last_seq: int | None = None
        """How far the changes of this client brought the event log, as far as their answers said:
        the largest number of any."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._where})"

    @property
    def _where(self) -> str:
        return str(self._socket_path or self._base_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call[Answer: BaseModel](
        self,
        method: str,
        target: str,
        answer: type[Answer],
        body: BaseModel | None = None,
        *,
        extra_wait_ms: int = 0,
        once: bool = False,
    ) -> Answer:
        """One request whose answer is an `Answer`. `extra_wait_ms` lengthens the time-out. With
        `once` it is sent again where no answer came, and the fleet does it once all the same."""
        key = secrets.token_urlsafe(18) if once else None
        try:
            raw = await self._exchange(method, target, body, extra_wait_ms, key)
        except FleetUnavailable:
            if key is None:
                raise
            raw = await self._exchange(method, target, body, extra_wait_ms, key)
        try:
            return answer.model_validate_json(raw)
        except ValidationError as error:
            raise FleetUnavailable(
                f"{self._where}: the answer to {method} {target.partition('?')[0]} "
                f"is not a {answer.__name__}"
            ) from _without_values(error)

    async def every[Item](
        self,
        path: str,
        page_of: type[PageModel[Item]],
        most: int | None = None,
        **query: str | tuple[str, ...] | None,
    ) -> tuple[Item, ...]:
        """A whole list, page by page; with `most` no more than its first items. `query` chooses
        which list."""
        found: tuple[Item, ...] = ()
        cursor: str | None = None
        while True:
            rows = MAX_ROWS if most is None else min(MAX_ROWS, most - len(found))
            target = query_target(path, limit=rows, cursor=cursor, **query)
            page = await self.call("GET", target, page_of)
            found, cursor = found + page.items, page.next_cursor
            if cursor is None or len(found) == most:
                return found

    async def send(self, method: str, target: str, body: BaseModel | None = None) -> None:
        """One request whose answer has no body worth reading."""
        await self._exchange(method, target, body, 0)

    async def stream(self, target: str, silence_ms: int) -> AsyncGenerator[bytes]:
        """The lines of an endless answer; FleetUnavailable when it ends or falls silent."""
        waits = aiohttp.ClientTimeout(
            total=None,
            sock_connect=self._timeout_ms / 1000,
            sock_read=silence_ms / 1000,
        )
        async with self._open("GET", target, b"", waits) as response:
            if response.status != 200:
                raise _problem(response.status, await _read_bounded(response))
            pending = bytearray()
            async for chunk in _chunks(response, self._where):
                pending += chunk
                while (end := pending.find(b"\n")) >= 0:
                    line = bytes(pending[:end])
                    del pending[: end + 1]
                    yield line
                if len(pending) > MAX_LINE_BYTES:
                    raise FleetUnavailable(f"{self._where}: a line of the stream is too long")
        raise FleetUnavailable(f"{self._where}: the stream ended")

    async def _exchange(
        self,
        method: str,
        target: str,
        body: BaseModel | None,
        extra_wait_ms: int,
        once_key: str | None = None,
    ) -> bytes:
        content = b"" if body is None else body.model_dump_json().encode()
        waits = aiohttp.ClientTimeout(total=(self._timeout_ms + extra_wait_ms) / 1000)
        async with self._open(method, target, content, waits, once_key) as response:
            raw = await _read_bounded(response)
            if not 200 <= response.status < 300:
                raise _problem(response.status, raw)
            self._note_seq(response.headers.get("Palyra-Seq", ""))
            return raw

    def _note_seq(self, told: str) -> None:
        if told.isascii() and told.isdigit() and len(told) < 16:
            self.last_seq = max(int(told), self.last_seq or 0)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        target: str,
        content: bytes,
        waits: aiohttp.ClientTimeout,
        once_key: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request; translate what the network does on the way in, inside and out."""
        headers: dict[str, str] = {}
        if content:
            headers["Content-Type"] = "application/json"
        if once_key is not None:
            headers["Idempotency-Key"] = once_key
        headers.update(travels())
        url = URL(self._base_url + target, encoded=True)

        async def with_credentials(
            request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            # aiohttp sends a GET again whose connection broke; a proof is good only once
            request.headers.update(self._credentials.headers(method, target, content))
            return await send(request)

        try:
            async with self._connected().request(
                method,
                url,
                data=content or None,
                headers=headers,
                timeout=waits,
                allow_redirects=False,
                middlewares=(with_credentials,),
                ssl=True if self._tls is None else self._tls(),
                server_hostname=None if self._tls is None else SERVER_NAME,
            ) as response:
                yield response
        except TimeoutError as error:
            raise FleetUnavailable(f"{self._where}: no answer in time") from error
        except _FOREIGN as error:
            raise FleetUnavailable(f"{self._where}: {_in_words(error)}") from error

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector = (
                aiohttp.TCPConnector()
                if self._socket_path is None
                else aiohttp.UnixConnector(str(self._socket_path))
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent",),
            )
        return self._session


async def _chunks(response: aiohttp.ClientResponse, where: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except TimeoutError as error:
        raise FleetUnavailable(f"{where}: the stream fell silent") from error
    except _FOREIGN as error:
        raise FleetUnavailable(f"{where}: {_in_words(error)}") from error


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > MAX_ANSWER_BYTES:
            raise FleetUnavailable(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(raw)


def _problem(status: int, raw: bytes) -> FleetProblem | FleetUnavailable:
    try:
        problem = Problem.model_validate_json(raw)
    except ValidationError:
        return FleetUnavailable(
            f"an answer {status} that is not the fleet's; is the address right?"
        )
    return FleetProblem(status, problem.reason, problem.detail)


def _url_of(where: FleetAddress | str) -> str:
    match where:
        case RemoteFleet(url=url):
            return url
        case str():
            return where
        case _:
            return SOCKET_URL


def _in_words(error: BaseException) -> str:
    """What the network said, without addresses of objects or repr of requests."""
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return "the fleet's certificate is not the one we trust, or it did not take ours"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect ({error.os_error.strerror or type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "the connection was closed"
    return f"the connection failed ({type(error).__name__})"


def _without_values(error: ValidationError) -> Exception:
    """The validation error's places only: its text would repeat what the answer held."""
    places = ", ".join(".".join(map(str, item["loc"])) or "body" for item in error.errors())
    return ValueError(f"unexpected fields: {places}")
