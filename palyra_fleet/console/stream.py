"""The console's live stream (server-sent events): each entry of the event log, as it comes, and a
word when devices, nodes or who waits for a run change, or a proxy counted anything, which have no
entries there.

A browser that was away names the last entry it saw (`Last-Event-ID`) and gets what followed, up to
a bound. The stream ends with the session, without making it last longer; streams are few per
principal and in all, and a reader that does not read is cut.
Source: HTML Living Standard, "Server-sent events".
"""

import asyncio
import contextlib
import json
from typing import Final

from aiohttp import web

from palyra_fleet.api.problems import ApiReason, ApiRefusal, Headers
from palyra_fleet.api.proxy_calls import STREAMING
from palyra_fleet.console.gate import COOKIE, ConsoleCall
from palyra_fleet.console.sessions import ConsoleSession
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.wire.models import EventView

MAX_STREAMS: Final = 8
"""Of one principal."""
MAX_IN_ALL: Final = 64
_LOOK_EVERY_S: Final = 0.25
_KEEP_ALIVE_EVERY: Final = 40
_MARK_EVERY: Final = 2
_TRAFFIC_EVERY: Final = 20
_MOST_AT_ONCE: Final = 200
_WRITE_WITHIN_S: Final = 5.0


async def events(call: ConsoleCall) -> web.StreamResponse:
    session = call.signed_in
    streams, name = call.desk.streams, session.principal.name
    if streams[name] >= MAX_STREAMS or streams.total() >= MAX_IN_ALL:
        raise ApiRefusal(ApiReason.TOO_MANY_CALLS, headers=Headers({"Retry-After": "5"}))
    streams[name] += 1
    try:
        return await _tell(call, session)
    finally:
        streams[name] -= 1
        if not streams[name]:
            del streams[name]


async def _tell(call: ConsoleCall, session: ConsoleSession) -> web.StreamResponse:
    seen = await _start(call)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    call.request[STREAMING] = True
    await response.prepare(call.request)
    with contextlib.suppress(FleetRefusal, TimeoutError):  # the answer has begun: it can only end
        await _follow(call, session, response, seen)
    return response


async def _follow(
    call: ConsoleCall, session: ConsoleSession, response: web.StreamResponse, seen: int
) -> None:
    """Tell what comes after entry `seen`, until the browser or the session is gone."""
    await _write(response, f"retry: 1000\nid: {seen}\nevent: here\ndata: {{}}\n\n")
    quiet, mark, looks = 0, _mark(call), 0
    counted = call.desk.service.traffic_mark()
    secret = call.request.cookies.get(COOKIE)
    while _is_there(call) and _holds(call, secret, session):
        fresh = await call.desk.service.events(seen, _MOST_AT_ONCE)
        quiet = 0 if fresh else quiet + 1
        if fresh:
            seen = fresh[-1].seq
            await _write(response, "".join(map(_message, fresh)))
        elif quiet % _KEEP_ALIVE_EVERY == 0:
            await _write(response, ": still here\n\n")
        elif quiet % _MARK_EVERY == 0 and mark != (mark := _mark(call)):
            await _write(response, "event: entry\ndata: {}\n\n")
        looks += 1
        if not looks % _TRAFFIC_EVERY and counted != (counted := call.desk.service.traffic_mark()):
            await _write(response, "event: traffic\ndata: {}\n\n")
        await asyncio.sleep(_LOOK_EVERY_S)
    if _is_there(call):
        await _write(response, "event: over\ndata: {}\n\n")


def _is_there(call: ConsoleCall) -> bool:
    """Whether the browser is still connected."""
    transport = call.request.transport
    return transport is not None and not transport.is_closing()


def _holds(call: ConsoleCall, secret: str | None, session: ConsoleSession) -> bool:
    return call.desk.sessions.find(secret, call.desk.clock(), uses=False) is session


async def _start(call: ConsoleCall) -> int:
    """After which entry to begin: the last the browser saw, or the newest."""
    newest = await call.desk.service.recent_events(None, 1)
    head = newest[0].seq if newest else 0
    asked = call.request.headers.get("Last-Event-ID", "")
    if asked.isascii() and asked.isdigit() and len(asked) < 16:
        return max(head - _MOST_AT_ONCE, min(int(asked), head))
    return head


def _mark(call: ConsoleCall) -> object:
    """What changes with what the pages show and the log does not tell: of devices and nodes, where
    they are served, and of workers that wait."""
    operations = call.desk.operations
    return call.desk.service.waiting(), None if operations is None else operations.mark()


def _message(event: EventView) -> str:
    told = {"reason": event.reason, "worker_id": event.worker_id, "at_unix_ms": event.at_unix_ms}
    return f"id: {event.seq}\nevent: entry\ndata: {json.dumps(told)}\n\n"


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(_WRITE_WITHIN_S):
        await response.write(text.encode())
