"""Whether a worker is bound to its proxy as it is now: asked anew for every lease. Pure.

A proxy's receipt counts for a lease while it is fresh and names the policy that this proxy has in
force. What a proxy has in force is its own last word, in a receipt or in a heartbeat, and is held
in memory: after a start of the fleet it is not known, and nobody is bound, until the proxy speaks.
Leases that are live are not touched: the proxy judges what they do by the policy of now, and they
end with the attestation unless it is shown anew. Times: Unix ms. Source: specification 20, 2.
"""

from palyra_fleet.ledger.decision import Decision, PolicyWord
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Proof
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal


def hear_policy(
    state: LedgerState, proxy_id: str, policy_digest: str, now_unix_ms: int
) -> Decision:
    """A proxy says which policy it has in force. Memory only."""
    draft = Draft(state, now_unix_ms, proxy_id)
    draft.hear(PolicyWord(proxy_id, policy_digest, now_unix_ms))
    return draft.finish()


def binding_refusal(
    state: LedgerState, policy: WorkerFleetPolicy, proof: Proof, now_unix_ms: int
) -> Refusal | None:
    """Why this proof of a binding is not good enough for a new lease; the worker must fetch a new
    receipt and attest with it."""
    name = proof.binding_proxy_id
    word = state.policy_words.get(name)
    if now_unix_ms >= proof.bound_at_unix_ms + policy.lease_binding_max_age_ms:
        seconds = policy.lease_binding_max_age_ms // 1_000
        return _stale(f"the receipt of proxy '{name}' is older than {seconds} s")
    if word is None:
        return _stale(f"it is not known which policy proxy '{name}' has in force")
    if not word.policy_digest or proof.binding_policy_digest != word.policy_digest:
        return _stale(f"the receipt of proxy '{name}' is from before its policy of now")
    return None


def _stale(why: str) -> Refusal:
    return Refusal(FleetReason.BINDING_STALE, f"the binding must be proved again: {why}")
