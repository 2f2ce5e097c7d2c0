"""The answer to a change says how far it brought the event log.

The header `Palyra-Seq` is the number of the last entry that the change wrote, or, where it wrote
none, of the last there was: what is read after that number came after the change. Changes that the
ledger does not hold (pairing, devices, what nodes are asked) get their entry here, once they are
made (`api.owed_entries` for when that fails); what happened is also in the identity's own log and
the nodes' records, with who and why.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel

from palyra_fleet.api.answers import SEQ_HEADER
from palyra_fleet.api.call import parse_body
from palyra_fleet.api.owed_entries import Entry, OwedEntries, same_request
from palyra_fleet.ledger.decision import Detail, EventReason
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.service.origin import ORIGIN
from palyra_fleet.wire.principal_models import Role

_TOLD: Final = {"reason": "why", "capability": "capability"}
"""Which fields of a body an entry repeats, and as what. Never an input, which may hold a secret."""
_NAMED: Final = {"request_id": "capability_request_id"}
"""What a part of a path is called in an entry, where the name means the request itself."""

_NOTES: Final[dict[Callable[..., Any], EventReason]] = {}


def is_change(method: str, role: Role | None) -> bool:
    """Whether a principal's route changes anything: what a viewer may ask for does not."""
    return method == "POST" and role not in {None, Role.VIEWER}


def notes[Handler: Callable[..., Any]](reason: EventReason) -> Callable[[Handler], Handler]:
    """Say which entry the log gets once the handler below has made its change."""

    def note(handler: Handler) -> Handler:
        _NOTES[handler] = reason
        return handler

    return note


def entry_of(handler: Callable[..., Any]) -> EventReason | None:
    """The entry of this handler's changes; None where the ledger writes them."""
    return _NOTES.get(handler)


@dataclass(frozen=True, slots=True)
class Change:
    """One change that is asked for: by whom, of what (the parts of the path), in which words."""

    handler: Callable[..., Any]
    actor: str
    parts: Mapping[str, str]
    model: type[BaseModel] | None
    body: bytes = field(repr=False)

    def about(self) -> Detail:
        """What the entry says: about what, and why."""
        asked = None if self.model is None else parse_body(self.model, self.body)
        told = {name: getattr(asked, said, None) for said, name in _TOLD.items()}
        known = {name: value for name, value in told.items() if isinstance(value, str)}
        return {_NAMED.get(name, name): value for name, value in self.parts.items()} | known


async def changed(
    service: FleetService,
    work: Callable[[], Awaitable[web.StreamResponse]],
    made: Change,
    owed: OwedEntries,
) -> web.StreamResponse:
    """Make the change, write its entry if the ledger does not, and say how far the log has come."""
    reason, origin = entry_of(made.handler), ORIGIN.get()
    if reason is None:
        response = await work()
        written = None if origin is None else origin.written.seq
    else:
        asked = same_request(made.handler, made.actor, made.parts, made.body)
        entry = Entry(reason, made.actor, made.about(), origin)
        response, written = await owed.noted(service, work, asked, entry)
    response.headers[SEQ_HEADER] = str(written or service.last_event_seq)
    return response
