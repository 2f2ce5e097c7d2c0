"""The fleet's events as lines of its log, once they are durable: the same spelling, the same ids.

What takes something from a worker, or says that the fleet's time or leases are not as they should
be, is a warning; everything else is information.
"""

import logging
from collections.abc import Iterable
from typing import Final

from palyra_fleet.ledger.decision import Detail, EventReason, LedgerEvent
from palyra_fleet.logs.fields import Field, Value, told

_log = logging.getLogger(__name__)

WARNINGS: Final = frozenset(
    {
        EventReason.QUARANTINED_BY_EGRESS,
        EventReason.QUARANTINED_BY_OPERATOR,
        EventReason.QUARANTINED_BY_RESTORE,
        EventReason.BANNED,
        EventReason.VIOLATION_STRUCK,
        EventReason.VIOLATION_RECORDED,
        EventReason.CLEANUP_FAILED,
        EventReason.EGRESS_SUSPENDED,
        EventReason.LEASES_FROZEN,
        EventReason.EGRESS_FROZEN,
        EventReason.CLOCK_SET_BACK,
        EventReason.RESTORED,
    }
)
FROM_DETAIL: Final = (
    (Field.REASON, "why"),
    (Field.DECISION_ID, "decision_id"),
    (Field.RULE_ID, "rule_id"),
    (Field.REQUEST_ID, "request_id"),
    (Field.ADDRESS, "from"),
)
"""What an event's detail calls it."""


def log_events(events: Iterable[LedgerEvent]) -> None:
    """One line an event."""
    for event in events:
        level = logging.WARNING if event.reason in WARNINGS else logging.INFO
        if _log.isEnabledFor(level):
            fields: dict[Field, Value | None] = {
                Field.ACTION: event.reason.value,
                Field.ACTOR: event.actor,
                Field.WORKER_ID: event.worker_id,
                Field.LEASE_ID: event.lease_id,
                **fields_of(event.detail),
            }
            _log.log(level, "%s by %s", event.reason.value, event.actor, extra=told(fields))


def fields_of(detail: Detail) -> dict[Field, Value | None]:
    """What an event's detail says that has a field of its own."""
    return {field: detail.get(name) for field, name in FROM_DETAIL}
