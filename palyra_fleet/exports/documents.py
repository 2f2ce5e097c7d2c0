"""One event of the fleet's log as a document for a SIEM, in the field names of its log lines. Pure.

`event.hash` is the entry's digest in the hash chain: who keeps it knows an event that comes twice,
and can check the chain with `palyra.event`, which is the entry as it stands in the log.
"""

from collections.abc import Mapping
from typing import Final

from palyra_fleet.logs.fields import ECS_VERSION, Field
from palyra_fleet.logs.lines import bounded, dumped, moment_of
from palyra_fleet.signals.event_lines import WARNINGS, fields_of
from palyra_fleet.wire.models import EventView

MAX_TEXT: Final = 1_024
MAX_DETAILS: Final = 24
DATASET: Final = "palyra.fleet.events"
_WARNINGS: Final = frozenset(reason.value for reason in WARNINGS)

type Document = dict[str, object]


def document_of(event: EventView) -> Document:
    """The document; what is not known is left out."""
    known: Mapping[Field, object] = {
        Field.ACTION: event.reason,
        Field.SEQUENCE: event.seq,
        Field.ACTOR: event.actor,
        Field.WORKER_ID: event.worker_id,
        Field.LEASE_ID: event.lease_id,
        **fields_of(event.detail),
    }
    return {
        "@timestamp": moment_of(event.at_unix_ms / 1000),
        "log.level": "warning" if is_warning(event) else "info",
        "message": bounded(f"{event.reason} by {event.actor}", MAX_TEXT),
        "ecs.version": ECS_VERSION,
        "service.name": "palyra-fleet",
        "event.kind": "alert" if is_warning(event) else "event",
        "event.dataset": DATASET,
        "event.hash": event.sha256,
        **{name.value: _cut(value) for name, value in known.items() if value is not None},
        "palyra.event": {
            "previous_sha256": event.previous_sha256,
            "detail": {
                bounded(name, MAX_TEXT): _cut(value)
                for name, value in list(event.detail.items())[:MAX_DETAILS]
            },
        },
    }


def text_of(event: EventView) -> str:
    """The document as one line of printable ASCII."""
    return dumped(document_of(event))


def is_warning(event: EventView) -> bool:
    return event.reason in _WARNINGS


def _cut(value: object) -> object:
    return bounded(value, MAX_TEXT) if isinstance(value, str) else value
