"""What becomes of the trace context that a worker sends with a request.

It passes on to the server like any other header, or is dropped. It is never believed, and never
made anew: a server elsewhere learns nothing of our own traces.
"""

from enum import StrEnum
from typing import TYPE_CHECKING

from palyra_fleet.traces.context import WORKERS_HEADERS

if TYPE_CHECKING:  # the parser reads the choices, and loads no proxy for them
    from mitmproxy import http


class TraceHeaders(StrEnum):
    """What happens to `traceparent`, `tracestate` and `baggage`."""

    PASS = "pass"  # noqa: S105 (no secret)
    DROP = "drop"


def drop_trace_headers(headers: "http.Headers") -> None:
    """Take the worker's trace context out of a request."""
    for name in WORKERS_HEADERS & {name.lower() for name in headers}:
        del headers[name]
