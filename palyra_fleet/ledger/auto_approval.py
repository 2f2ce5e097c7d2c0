"""Approvals that a rule gives: made for one worker and one run, counted, and taken back. Pure.

A rule approves only what no operator has: a worker that may work, is bound to its proxy just now
and asks for a run that nobody holds. The first rule that fits and has room gives the approval; no
rule, and an operator has to. A storm's freeze stops all of them. When rules change, what was given
by a rule that is not there as it was is taken back, unless it was used; leases that run keep their
end. Times: Unix ms.
"""

from dataclasses import replace

from palyra_fleet.leases.approval_rules import (
    ACTOR_PREFIX,
    HERE,
    ApprovalRule,
    ApprovalRules,
    Asker,
    RunAsked,
)
from palyra_fleet.leases.records import WorkerApprovalGrant
from palyra_fleet.ledger import storm
from palyra_fleet.ledger.binding import binding_refusal
from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.facts import Eligibility, WorkerRecord
from palyra_fleet.ledger.grants import create_grant
from palyra_fleet.ledger.guards import find_working
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.keys import thumbprint_sha256

RULES_ACTOR = "approval-rules"


def approve_by_rule(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    rules: ApprovalRules,
    worker_id: str,
    session_epoch: int,
    asked: RunAsked,
    grant_id: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """An approval for this worker, if a rule gives one."""
    worker = find_working(state, worker_id, session_epoch)
    if isinstance(worker, Refusal):
        return worker
    refusal = _asking_refusal(state, policy, worker, asked, now_unix_ms)
    if refusal is not None:
        return refusal
    full: Refusal | None = None
    for rule in rules.fitting(asker_of(state, worker), asked, now_unix_ms):
        full = limit_refusal(state, rule, now_unix_ms)
        if full is None:
            return _approve(state, rules, rule, worker_id, asked, grant_id, now_unix_ms)
    text = f"no usable grant approves run '{asked.run_id}', and no approval rule does"
    return full or Refusal(FleetReason.NO_GRANT, text)


def rules_changed(state: LedgerState, rules: ApprovalRules, now_unix_ms: int) -> Decision:
    """These rules are in force. What others gave and nobody used is taken back."""
    draft = Draft(state, now_unix_ms, RULES_ACTOR)
    detail: Detail = {"rules": len(rules.rules), "rules_sha256": rules.file_sha256}
    draft.event(EventReason.RULES_IN_FORCE, None, None, detail)
    for grant in state.grants.values():
        if grant.rule is not None and not rules.still_says(grant.rule):
            draft.put(replace(grant, withdrawn=True))
            why = f"rule '{grant.rule.rule_id}' is gone or says something else"
            gone: Detail = {"grant_id": grant.grant_id, "run_id": grant.run_id, "why": why}
            draft.event(EventReason.GRANT_WITHDRAWN, None, None, gone)
    return draft.finish()


def asker_of(state: LedgerState, worker: WorkerRecord) -> Asker:
    """What was verified about who asks."""
    proof = worker.proof
    launcher = next(
        (
            key.name
            for key in state.enrolled.values()
            if key.kind == "launcher"
            and not key.revoked
            and thumbprint_sha256(key.public_key) == proof.launcher_sha256
        ),
        None,
    )
    return Asker(
        identity=worker.evidence_identity,
        machine=proof.device_id or HERE,
        launcher=launcher,
        artifact_digest_sha256=proof.artifact_digest_sha256 if proof.measured else None,
    )


def limit_refusal(state: LedgerState, rule: ApprovalRule, now_unix_ms: int) -> Refusal | None:
    """Why this rule gives nothing more for now, if so."""
    if state.rules.at_once(rule.rule_id) >= rule.at_once:
        text = f"approval rule '{rule.rule_id}' has {rule.at_once} runs at once"
        return Refusal(FleetReason.RULE_LIMIT, text)
    if state.rules.in_the_last_hour(rule.rule_id, now_unix_ms) >= rule.uses_per_hour:
        text = f"approval rule '{rule.rule_id}' gave {rule.uses_per_hour} approvals within an hour"
        return Refusal(FleetReason.RULE_LIMIT, text)
    return None


def _asking_refusal(
    state: LedgerState,
    policy: WorkerFleetPolicy,
    worker: WorkerRecord,
    asked: RunAsked,
    now_unix_ms: int,
) -> Refusal | None:
    if worker.eligibility is not Eligibility.ELIGIBLE:
        text = f"worker '{worker.worker_id}' takes no new leases: draining"
        return Refusal(FleetReason.DRAINING, text)
    if asked.run_id in state.lease_by_run:
        return Refusal(FleetReason.RUN_LEASED, f"run '{asked.run_id}' has a live lease")
    if state.live_lease_of(worker.worker_id) is not None:
        return Refusal(FleetReason.WORKER_LEASED, f"worker '{worker.worker_id}' holds a lease")
    if state.usable_grant(asked.run_id, now_unix_ms) is not None:
        return Refusal(FleetReason.COMMAND_INVALID, f"run '{asked.run_id}' is approved already")
    return storm.refusal(state, policy) or binding_refusal(state, policy, worker.proof, now_unix_ms)


def _approve(
    state: LedgerState,
    rules: ApprovalRules,
    rule: ApprovalRule,
    worker_id: str,
    asked: RunAsked,
    grant_id: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    actor = f"{ACTOR_PREFIX}{rule.rule_id}"
    grant = WorkerApprovalGrant(
        grant_id=grant_id,
        run_id=asked.run_id,
        tool_name=asked.tool_name,
        principal=state.workers[worker_id].evidence_identity,
        egress_profile=asked.egress_profile,
        expires_at_unix_ms=min(now_unix_ms + rule.lease_ms, rule.until_unix_ms),
        approved_by=actor,
        worker_id=worker_id,
        rule=rules.mark(rule, now_unix_ms),
        read_only=rule.read_only,
    )
    return create_grant(state, grant, actor, now_unix_ms)
