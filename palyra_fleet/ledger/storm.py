"""The storm breaker: too many quarantines in a minute freeze new leases until an operator looks.

Either many workers turned, or a proxy or a policy accuses everybody; in both cases nothing new
should start. It never skips a quarantine. Frozen stays frozen, also over a restart, until an
operator says that the fleet goes on; then the count begins anew. Pure. Times: Unix ms.
"""

from dataclasses import replace

from palyra_fleet.ledger.decision import Decision, Detail, EventReason, LeaseFreeze, LedgerEvent
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal


def trip(state: LedgerState, policy: WorkerFleetPolicy, decision: Decision) -> Decision:
    """The decision, and the freeze in the same transaction where it is the one too many."""
    if not decision.quarantines or state.freeze.frozen:
        return decision
    count = len(state.recent_quarantines) + decision.quarantines
    if count <= policy.storm_quarantines_per_minute:
        return decision
    detail: Detail = {"quarantines": count, "limit": policy.storm_quarantines_per_minute}
    event = LedgerEvent(EventReason.LEASES_FROZEN, "fleet", detail=detail)
    return replace(
        decision,
        records=(*decision.records, LeaseFreeze(True, decision.at_unix_ms)),
        events=(*decision.events, event),
    )


def unfreeze(state: LedgerState, actor: str, why: str, now_unix_ms: int) -> Decision | Refusal:
    """New leases are given again, and quarantines are counted from now on."""
    if not state.freeze.frozen:
        return Refusal(FleetReason.NOT_FROZEN, "new leases are not frozen")
    event = LedgerEvent(EventReason.LEASES_UNFROZEN, actor, detail={"why": why})
    return Decision(now_unix_ms, records=(LeaseFreeze(False, now_unix_ms),), events=(event,))


def refusal(state: LedgerState, policy: WorkerFleetPolicy) -> Refusal | None:
    """Why no new lease is given, if so."""
    if state.freeze.frozen:
        text = "new leases are frozen since a storm of quarantines; an operator must unfreeze them"
        return Refusal(FleetReason.STORM, text)
    if len(state.recent_quarantines) > policy.storm_quarantines_per_minute:
        text = "new leases are frozen: too many workers were quarantined in the last minute"
        return Refusal(FleetReason.STORM, text)
    return None
