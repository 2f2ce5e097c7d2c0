"""The console's live stream (server-sent events): each entry of the event log, as it comes, and a
word when devices, nodes or who waits for a run change, or a proxy counted anything, which have no
entries there.

A browser that was away names the last entry it saw (`Last-Event-ID`) and gets what followed, up to
a bound. The stream ends with the session, without making it last longer; streams are few per
principal and in all, and a reader that does not read is cut. How the log is followed is
`api.event_stream`'s.
"""

import contextlib
import json
from typing import Final

from aiohttp import web

from palyra_fleet.api.event_stream import MOST_AT_ONCE, EventStream, LogReader, is_there
from palyra_fleet.api.protocol import ends_with_connection
from palyra_fleet.console.gate import COOKIE, ConsoleCall
from palyra_fleet.console.sessions import ConsoleSession
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.wire.models import EventView
from palyra_fleet.wire.principal_models import Role

_LOOK_EVERY_S: Final = 0.25
_KEEP_ALIVE_EVERY: Final = 40
_MARK_EVERY: Final = 2
_TRAFFIC_EVERY: Final = 20
_WRITE_WITHIN_S: Final = 5.0


async def events(call: ConsoleCall) -> web.StreamResponse:
    session = call.signed_in
    place = call.desk.streams.held(session.principal.name, let_first=call.may(Role.ADMIN))
    with place, ends_with_connection(call.request):
        seen = _start(call)
        stream = EventStream(call.request, _WRITE_WITHIN_S)
        await stream.begin()
        with contextlib.suppress(FleetRefusal):  # the answer has begun: it can only end
            await _follow(call, session, stream, seen)
        return stream.response


async def _follow(
    call: ConsoleCall, session: ConsoleSession, stream: EventStream, seen: int
) -> None:
    """Tell what comes after entry `seen`, until the browser or the session is gone."""
    secret = call.request.cookies.get(COOKIE)
    reader = LogReader(call.desk.service, call.request, lambda: _holds(call, secret, session), seen)
    await stream.write(f"retry: 1000\nid: {seen}\nevent: here\ndata: {{}}\n\n")
    quiet, mark, looks = 0, _mark(call), 0
    counted = call.desk.service.traffic_mark()
    while (fresh := await reader.news(_LOOK_EVERY_S)) is not None:
        quiet = 0 if fresh else quiet + 1
        if fresh:
            await stream.write("".join(map(_message, fresh)))
        elif quiet % _KEEP_ALIVE_EVERY == 0:
            await stream.write(": still here\n\n")
        elif quiet % _MARK_EVERY == 0 and mark != (mark := _mark(call)):
            await stream.write("event: entry\ndata: {}\n\n")
        looks += 1
        if not looks % _TRAFFIC_EVERY and counted != (counted := call.desk.service.traffic_mark()):
            await stream.write("event: traffic\ndata: {}\n\n")
    if is_there(call.request):
        await stream.write("event: over\ndata: {}\n\n")


def _holds(call: ConsoleCall, secret: str | None, session: ConsoleSession) -> bool:
    return call.desk.sessions.find(secret, call.desk.clock(), uses=False) is session


def _start(call: ConsoleCall) -> int:
    """After which entry to begin: the last the browser saw, or the newest."""
    newest = call.desk.service.last_event_seq
    asked = call.request.headers.get("Last-Event-ID", "")
    if asked.isascii() and asked.isdigit() and len(asked) < 16:
        return max(newest - MOST_AT_ONCE, min(int(asked), newest))
    return newest


def _mark(call: ConsoleCall) -> object:
    """What changes with what the pages show and the log does not tell: of devices and nodes, where
    they are served, and of workers that wait."""
    operations = call.desk.operations
    return call.desk.service.waiting(), None if operations is None else operations.mark()


def _message(event: EventView) -> str:
    told = {"reason": event.reason, "worker_id": event.worker_id, "at_unix_ms": event.at_unix_ms}
    return f"id: {event.seq}\nevent: entry\ndata: {json.dumps(told)}\n\n"
