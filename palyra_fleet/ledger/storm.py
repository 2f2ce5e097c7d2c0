"""The storm breaker: too many quarantines in a minute freeze new leases until an operator looks.

Either many workers turned, or a proxy or a policy accuses everybody; in both cases nothing new
should start. It never skips a quarantine. Frozen stays frozen, also over a restart, until an
operator says that the fleet goes on (`freezing`); then the count begins anew. Pure. Times: Unix ms.
"""

from dataclasses import replace

from palyra_fleet.ledger import freezing
from palyra_fleet.ledger.decision import Decision, Detail, EventReason, FleetFreeze, LedgerEvent
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
        records=(*decision.records, FleetFreeze(True, decision.at_unix_ms)),
        events=(*decision.events, event),
    )


def refusal(state: LedgerState, policy: WorkerFleetPolicy) -> Refusal | None:
    """Why no new lease is given, if so."""
    if state.freeze.by is not None:
        return Refusal(FleetReason.FROZEN, freezing.said(state.freeze))
    if state.freeze.frozen:
        text = "new leases are frozen since a storm of quarantines; an operator must unfreeze them"
        return Refusal(FleetReason.STORM, text)
    if len(state.recent_quarantines) > policy.storm_quarantines_per_minute:
        text = "new leases are frozen: too many workers were quarantined in the last minute"
        return Refusal(FleetReason.STORM, text)
    return None
