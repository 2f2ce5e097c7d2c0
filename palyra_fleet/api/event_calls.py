"""Handlers of the event log's routes: pages, a page that waits, and a stream.

All three go on after a number. One that the log has not come to is refused, since its entry is
gone: an older state was restored, and who follows must know. Waiting and streaming take a place of
the principal; both end with its token, its role, and the application.
"""

import asyncio
import contextlib
from typing import Final

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call, read_number
from palyra_fleet.api.event_stream import (
    EVENT_STREAM,
    LOOK_EVERY_S,
    EventStream,
    LogReader,
    ReaderGone,
    abort,
    is_there,
)
from palyra_fleet.api.paging import DEFAULT_ROWS, MAX_ROWS
from palyra_fleet.api.problems import ApiReason, ApiRefusal
from palyra_fleet.api.protocol import ends_with_connection
from palyra_fleet.client.lists import EventList, EventsVerified
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.models import EventView

MAX_SEQ: Final = 10**15 - 1
MAX_WAIT_S: Final = 60
LAST_EVENT_ID: Final = "Last-Event-ID"
_KEEP_ALIVE_EVERY: Final = 10


@answers.gives(EventList)
async def list_events(call: Call) -> web.StreamResponse:
    """What comes after `after_seq`: at once, or within `wait` seconds, else nothing."""
    after_seq = _after(call)
    limit = call.number("limit", default=DEFAULT_ROWS, least=1, most=MAX_ROWS)
    wait_s = call.number("wait", default=0, least=0, most=MAX_WAIT_S)
    found = await call.service.events(after_seq, limit)
    if not found and wait_s:
        with call.held(), ends_with_connection(call.request):
            found = await _awaited(call, after_seq, limit, wait_s)
    return answers.model(EventList(items=found))


async def _awaited(call: Call, after_seq: int, limit: int, wait_s: int) -> tuple[EventView, ...]:
    found: tuple[EventView, ...] = ()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            while not found and is_there(call.request) and not call.log_readers.ending:
                await call.service.log_goes_beyond(after_seq, LOOK_EVERY_S)
                call.still()
                found = await call.service.events(after_seq, limit)
    call.still()
    if not is_there(call.request):
        raise ReaderGone("who asked is gone")
    if not found and call.log_readers.ending:
        raise FleetRefusal(FleetReason.CLOSED, "the fleet is shutting down")
    return found


@answers.gives(answers.Gives(None, content_type=EVENT_STREAM, form={"type": "string"}))
async def stream_events(call: Call) -> web.StreamResponse:
    """Every entry after `Last-Event-ID`, else `after_seq`, as it comes: its number is the id."""
    seen = _after(call)
    stream = EventStream(call.request, call.write_timeout_ms / 1000)
    await stream.begin()
    try:
        await _follow(call, stream, seen)
    except (FleetRefusal, ReaderGone):
        abort(call.request)  # the answer has begun: the reader comes again and is told why
    return stream.response


async def _follow(call: Call, stream: EventStream, seen: int) -> None:
    reader = LogReader(call.service, call.request, lambda: _may_read(call), seen)
    await stream.write("retry: 1000\n: here\n\n")
    quiet = 0
    while (fresh := await reader.news(LOOK_EVERY_S)) is not None:
        quiet = 0 if fresh else quiet + 1
        if fresh:
            await stream.write("".join(map(_message, fresh)))
        elif quiet % _KEEP_ALIVE_EVERY == 0:
            await stream.write(": still here\n\n")
    if is_there(call.request):
        await stream.write("event: over\ndata: {}\n\n")


def _may_read(call: Call) -> bool:
    return call.may_still() and not call.log_readers.ending


def _message(event: EventView) -> str:
    return f"id: {event.seq}\nevent: entry\ndata: {event.model_dump_json()}\n\n"


def _after(call: Call) -> int:
    """After which entry to begin. Raises ApiRefusal where the log has not come to it."""
    after_seq = call.number("after_seq", default=0, least=0, most=MAX_SEQ)
    last = call.header(LAST_EVENT_ID)
    if last is not None:
        given = {LAST_EVENT_ID: last}
        after_seq = read_number(given, LAST_EVENT_ID, default=0, least=0, most=MAX_SEQ)
    if after_seq > (newest := call.service.last_event_seq):
        text = f"the log ends at {newest}: an older state was restored; begin after that"
        raise ApiRefusal(ApiReason.AHEAD_OF_LOG, text)
    return after_seq


@answers.gives(EventsVerified)
async def verify_events(call: Call) -> web.StreamResponse:
    return answers.model(EventsVerified(entries=await call.service.verify_events()))
