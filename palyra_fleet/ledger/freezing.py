"""The kill switch: an operator freezes new leases, or all egress with them, and ends it. Pure.

A freeze of egress takes nothing from anybody: leases, workers and grants stay as they are, and
every proxy refuses everything until it is told otherwise. A freeze is only ever made wider by
`freeze`; what gives back is `unfreeze`, which also ends the freeze of a storm. Both outlive a
restart. Times: Unix ms.
"""

from palyra_fleet.ledger.decision import (
    Decision,
    Detail,
    EventReason,
    FleetFreeze,
    LedgerEvent,
)
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal


def freeze(
    state: LedgerState, egress: bool, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """No new lease from now on; with `egress` nothing passes any proxy either."""
    before = state.freeze
    if before.frozen and before.by is not None and before.egress >= egress:
        return Refusal(FleetReason.ALREADY_FROZEN, said(before))
    frozen = FleetFreeze(True, now_unix_ms, before.egress or egress, actor)
    reason = EventReason.EGRESS_FROZEN if frozen.egress else EventReason.LEASES_FROZEN
    return _decided(frozen, reason, actor, why)


def unfreeze(
    state: LedgerState, egress_only: bool, actor: str, why: str, now_unix_ms: int
) -> Decision | Refusal:
    """All goes on, and quarantines are counted from now on; with `egress_only` what runs goes on,
    and new leases stay frozen."""
    before = state.freeze
    if egress_only:
        if not before.egress:
            return Refusal(FleetReason.NOT_FROZEN, "egress is not frozen")
        kept = FleetFreeze(True, now_unix_ms, by=actor)
        return _decided(kept, EventReason.EGRESS_UNFROZEN, actor, why)
    if not before.frozen:
        return Refusal(FleetReason.NOT_FROZEN, "new leases are not frozen")
    ended = FleetFreeze(False, now_unix_ms)
    return _decided(ended, EventReason.LEASES_UNFROZEN, actor, why)


def said(freeze: FleetFreeze) -> str:
    """What is frozen and by whom, for refusals and alarms."""
    what = "all egress and new leases are" if freeze.egress else "new leases are"
    return f"{what} frozen by '{freeze.by}'"


def _decided(freeze: FleetFreeze, reason: EventReason, actor: str, why: str) -> Decision:
    detail: Detail = {"why": why}
    event = LedgerEvent(reason, actor, detail=detail)
    return Decision(freeze.at_unix_ms, records=(freeze,), events=(event,))
