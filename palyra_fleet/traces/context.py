"""Which trace something belongs to, and the header that says so between our own programs.

`read_traceparent` takes version 00 of W3C Trace Context and nothing else; what does not fit is no
context, never an error. Who sent it decides what it is worth: the fleet goes on with the trace of a
proxy that it knows, and of nobody else. `travelling` sends a context with every call to the fleet
inside its block. Source: W3C Trace Context, sections 3.2 and 4.3 (Recommendation, November 2021).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

HEADER: Final = "traceparent"
WORKERS_HEADERS: Final = frozenset({HEADER, "tracestate", "baggage"})
"""What a program's own tracing adds to its requests."""

_FORM: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NOTHING: Final = frozenset("0")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_TRAVELS: Final[ContextVar[Mapping[str, str]]] = ContextVar("palyra_traceparent", default=_NONE)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of one trace: 32 and 16 hexadecimal digits, lower case. `is_sampled` says that it is
    exported."""

    trace_id: str
    span_id: str
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def read_traceparent(text: str | None) -> TraceContext | None:
    """The context in a header's value; None if there is none that is well formed."""
    found = _FORM.fullmatch(text or "")
    if found is None:
        return None
    trace_id, span_id, flags = found.groups()
    if set(trace_id) <= _NOTHING or set(span_id) <= _NOTHING:
        return None
    return TraceContext(trace_id, span_id, is_sampled=bool(int(flags, 16) & 1))


@contextmanager
def travelling(context: TraceContext | None) -> Iterator[None]:
    """Calls to the fleet inside the block belong to this span; None: to no trace."""
    token = _TRAVELS.set(_NONE if context is None else {HEADER: context.traceparent})
    try:
        yield
    finally:
        _TRAVELS.reset(token)


def travels() -> Mapping[str, str]:
    """The header that a call to the fleet takes along; empty outside of traces."""
    return _TRAVELS.get()
