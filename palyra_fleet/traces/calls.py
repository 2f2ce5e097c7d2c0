"""Calls of the fleet's API as spans, and what a command does inside of one.

A call is traced once it is known who calls: a proxy's trace goes on, since the fleet knows its key;
everybody else's word is no trace, and begins a new one. Streams have no span, since they end when
the program does. `step` is a part of the call that is going on, `note` says what it found; outside
of a traced call both do nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from palyra_fleet.clock import now_unix_ns
from palyra_fleet.logs.fields import Field, within
from palyra_fleet.traces.context import HEADER, read_traceparent
from palyra_fleet.traces.spans import (
    Attribute,
    Attributes,
    Kind,
    OpenSpan,
    Spans,
    Value,
    known_method,
)

_REFUSED: Final = 400
_OUR_FAULT: Final = 500


@dataclass(slots=True)
class CallTrace:
    """One call, from its first header on; `span` once it is traced."""

    spans: Spans
    method: str
    route: str
    began_unix_ns: int
    span: OpenSpan | None = None
    is_looked_at: bool = False

    def begin(self, traceparent: str | None) -> None:
        """It is traced, if it goes on with a trace or chance says so."""
        self.is_looked_at = True
        parent = read_traceparent(traceparent)
        if parent.is_sampled if parent is not None else self.spans.is_sampled():
            name = f"{self.method} {self.route}" if self.route else self.method
            about = {Attribute.METHOD: self.method, Attribute.ROUTE: self.route or None}
            self.span = self.spans.begin(
                name, Kind.SERVER, self.began_unix_ns, about, parent=parent
            )

    def end(self, status: int | None, told: Attributes) -> None:
        """It was answered; None: it was not, since somebody went away."""
        if not self.is_looked_at and status is not None and status >= _REFUSED:
            self.begin(None)
        if self.span is not None:
            error = "aborted" if status is None else None
            if status is not None and status >= _OUR_FAULT:
                error = str(status)
            self.span.end(now_unix_ns(), {**told, Attribute.STATUS: status}, error)


@dataclass(slots=True)
class _Step:
    name: str
    facts: dict[Attribute, Value | None] = field(default_factory=dict)


TRACE: Final = web.RequestKey("palyra-trace", CallTrace)
_CURRENT: Final[ContextVar[CallTrace | None]] = ContextVar("palyra_call", default=None)
_STEP: Final[ContextVar[_Step | None]] = ContextVar("palyra_step", default=None)


def follow(spans: Spans, request: web.Request, route: str) -> CallTrace:
    """From now on the call can be traced."""
    request[TRACE] = CallTrace(spans, known_method(request.method), route, now_unix_ns())
    return request[TRACE]


@contextmanager
def traced(request: web.Request, *, by_proxy: bool, streams: bool) -> Iterator[None]:
    """What a known caller asked for is done inside the block; its log lines carry the trace."""
    call = request.get(TRACE)
    if call is None:
        yield
        return
    if streams:
        call.is_looked_at = True
        yield
        return
    given = request.headers.getall(HEADER, []) if by_proxy else []
    call.begin(given[0] if len(given) == 1 else None)
    if call.span is None:
        yield
        return
    token = _CURRENT.set(call)
    try:
        with within({Field.TRACE_ID: call.span.context.trace_id}):
            yield
    finally:
        _CURRENT.reset(token)


@contextmanager
def step(name: str) -> Iterator[None]:
    """A part of the call that is going on, as a span of its own."""
    call = _CURRENT.get()
    if call is None or call.span is None:
        yield
        return
    one, began, error = _Step(name), now_unix_ns(), "refused"
    token = _STEP.set(one)
    try:
        yield
        error = ""
    finally:
        _STEP.reset(token)
        parent = call.span.context
        span = call.spans.begin(one.name, Kind.INTERNAL, began, one.facts, parent=parent)
        span.end(now_unix_ns(), None, error or None)


def note(facts: Attributes, name: str | None = None) -> None:
    """What the step that is going on found, and what it is called for that."""
    one = _STEP.get()
    if one is not None:
        one.facts.update(facts)
        one.name = name or one.name
