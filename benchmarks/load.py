"""The load generator: a few connections that ask again as soon as they are answered.

A program of its own, in pure asyncio. The argument is a `Plan` as JSON. It opens its connections,
makes one request on each, says `ready`, waits for a line on stdin, counts for `seconds`, and prints
the count as JSON. Anything but a complete 200 ends it with an error: a benchmark of refusals or of
broken connections must not look like a fast one.
"""

import asyncio
import json
import ssl
import sys
from dataclasses import dataclass
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_OPEN_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`proxy` is (host, port) or None for direct. `authorization` is the proxy's credential.
    With `fresh` each request has a connection, a tunnel and a TLS handshake of its own."""

    origin: tuple[str, int]
    name: str
    ca_file: str | None
    proxy: tuple[str, int] | None
    authorization: str | None
    connections: int
    seconds: float
    fresh: bool

    @property
    def authority(self) -> str:
        return f"{self.name}:{self.origin[1]}"

    @property
    def _credential(self) -> str:
        return f"Proxy-Authorization: {self.authorization}\r\n" if self.authorization else ""

    @property
    def request(self) -> bytes:
        """The request as it is sent: absolute form with credentials on a plain proxied one."""
        through_plain_proxy = self.proxy is not None and self.ca_file is None
        target = f"http://{self.authority}/work" if through_plain_proxy else "/work"
        credential = self._credential if through_plain_proxy else ""
        return f"GET {target} HTTP/1.1\r\nHost: {self.authority}\r\n{credential}\r\n".encode()

    @property
    def connect(self) -> bytes:
        return (
            f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n{self._credential}\r\n"
        ).encode()


class Broken(Exception):
    """An answer was not a complete 200."""


class Caller(asyncio.Protocol):
    """One connection, one request at a time. `ask` waits for one answer; after `repeat` each answer
    is counted and asked for again. `lost` fails with Broken when the connection or an answer does.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.count = 0
        self.request: bytes | None = None
        self._pending = b""
        self._answered: asyncio.Future[None] | None = None
        self.lost = asyncio.get_running_loop().create_future()
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._pending + data if self._pending else data
        end = data.find(_HEAD_END)
        if end < 0:
            self._pending = data
            return
        if not data.startswith(b"HTTP/1.1 200 "):
            self._fail(data[:end].partition(b"\r\n")[0].decode("latin-1"))
            return
        if len(data) - end - 4 < _length(data[:end]):
            self._pending = data
            return
        self._pending = b""
        self.count += 1
        if self._answered is not None:
            self._answered.set_result(None)
            self._answered = None
        elif self.request is not None and self.transport is not None:
            self.transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc or 'closed'}")

    async def ask(self, request: bytes) -> None:
        """Send and wait for the answer."""
        assert self.transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await asyncio.wait((self._answered, self.lost), return_when=asyncio.FIRST_COMPLETED)
        if self.lost.done():
            self.lost.result()

    def repeat(self, request: bytes) -> None:
        """From now on ask again after each answer."""
        assert self.transport is not None
        self.request = request
        self.transport.write(request)

    def close(self) -> None:
        self.closing = True
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, why: str) -> None:
        if not self.lost.done():
            if self.closing:
                self.lost.set_result(None)
            else:
                self.lost.set_exception(Broken(why))


def _length(head: bytes) -> int:
    lower = head.lower()
    start = lower.find(b"content-length:")
    return int(lower[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


async def opened(plan: Plan, context: ssl.SSLContext | None) -> Caller:
    """A connection on which requests can be sent: with tunnel and TLS where the plan has them."""
    loop = asyncio.get_running_loop()
    where = plan.proxy or plan.origin
    transport, caller = await loop.create_connection(Caller, *where)
    if context is None:
        return caller
    if plan.proxy is not None:
        await caller.ask(plan.connect)
    secure = await loop.start_tls(transport, caller, context, server_hostname=plan.name)
    assert secure is not None
    caller.transport = secure
    return caller


async def keep_alive(plan: Plan, context: ssl.SSLContext | None) -> tuple[int, float]:
    """Requests answered on connections that stay open, and in how many seconds."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_OPEN_WITHIN_S):
        callers = [await opened(plan, context) for _ in range(plan.connections)]
        for caller in callers:
            await caller.ask(plan.request)
    await _ready()
    for caller in callers:
        caller.count = 0
    started = loop.time()
    for caller in callers:
        caller.repeat(plan.request)
    lost = [caller.lost for caller in callers]
    await asyncio.wait(lost, timeout=plan.seconds, return_when=asyncio.FIRST_EXCEPTION)
    took = loop.time() - started
    count = sum(caller.count for caller in callers)
    for caller in callers:
        if caller.lost.done():
            caller.lost.result()
        caller.close()
    return count, took


async def new_connections(plan: Plan, context: ssl.SSLContext | None) -> tuple[int, float]:
    """Requests answered where each has a connection of its own."""
    loop = asyncio.get_running_loop()

    async def once() -> None:
        caller = await opened(plan, context)
        await caller.ask(plan.request)
        caller.close()

    async def again_until(end: float) -> int:
        count = 0
        while loop.time() < end:
            await once()
            count += loop.time() < end
        return count

    await once()
    await _ready()
    started = loop.time()
    end = started + plan.seconds
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(again_until(end)) for _ in range(plan.connections)]
    return sum(task.result() for task in tasks), plan.seconds


async def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)


async def main() -> None:
    given = json.loads(sys.argv[1])
    given["origin"] = tuple(given["origin"])
    given["proxy"] = tuple(given["proxy"]) if given["proxy"] else None
    plan = Plan(**given)
    context = None
    if plan.ca_file is not None:
        context = ssl.create_default_context(cafile=plan.ca_file)
    work = new_connections if plan.fresh else keep_alive
    count, took = await work(plan, context)
    sys.stdout.write(json.dumps({"requests": count, "seconds": took}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
