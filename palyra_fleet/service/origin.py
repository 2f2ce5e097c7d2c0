"""Where a call came from, so that the events it causes can say so, and which these are.

The HTTP layer sets the origin of a principal's call; the fleet's core writes it into the events of
that call, and of no other: what falls due meanwhile is nobody's doing. The other way around it
notes how far that call brought the log, for its answer. A context variable, because it concerns
every command and decides none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Final

from aiohttp import web

from palyra_fleet.ledger.decision import Decision
from palyra_fleet.logs.fields import within

REQUEST_ID: Final = web.RequestKey("palyra-request-id", str)
"""Where the HTTP layer keeps the id of a request."""


@dataclass(slots=True)
class Written:
    """The number of the last event that a call wrote; None until it wrote one."""

    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """One call. `address` is the peer's, `request_id` the ULID that its answer carried; `written`
    is filled in while the call goes on."""

    address: str
    request_id: str
    written: Written = field(default_factory=Written, compare=False)


ORIGIN: Final[ContextVar[Origin | None]] = ContextVar("palyra_fleet_origin", default=None)


@contextmanager
def nobodys_doing() -> Iterator[None]:
    """Within the block events have no origin, and log lines no call."""
    token = ORIGIN.set(None)
    try:
        with within({}, alone=True):
            yield
    finally:
        ORIGIN.reset(token)


def with_origin(decision: Decision) -> Decision:
    """The decision, its events saying where the call came from, if a principal's call caused it."""
    origin = ORIGIN.get()
    if origin is None or not decision.events:
        return decision
    where = {"from": origin.address, "request_id": origin.request_id}
    events = tuple(replace(event, detail={**event.detail, **where}) for event in decision.events)
    return replace(decision, events=events)


def note_written(seq: int) -> None:
    """The events of the call that goes on, if one does, are durable up to this number."""
    origin = ORIGIN.get()
    if origin is not None:
        origin.written.seq = max(seq, origin.written.seq or 0)
