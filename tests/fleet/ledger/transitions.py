"""What one command may change: the rules over two moments that no single state shows.

For the stateful test and the small-scope exploration. `command` is the name of the manager's method
that decided. Numbers are those of specification 20, section 1.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import replace

from palyra_fleet import ledger
from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.facts import Admission, Liveness, Work, WorkerRecord
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.ledger.state import LedgerState

_BY_THE_MANAGER = {
    name
    for name, command in inspect.getmembers(WorkerFleetManager, inspect.isfunction)
    if (not name.startswith("_") and "Outcome" in str(inspect.signature(command).return_annotation))
    or name in {"reap", "end_what_time_bounds"}
}


def _deciding() -> set[str]:
    """Every public function of the ledger that answers a decision."""
    found = set()
    for module in pkgutil.iter_modules(ledger.__path__):
        inside = importlib.import_module(f"{ledger.__name__}.{module.name}")
        for name, function in inspect.getmembers(inside, inspect.isfunction):
            answers = str(inspect.signature(function).return_annotation)
            own = function.__module__ == inside.__name__ and not name.startswith("_")
            if own and "Decision" in answers:
                found.add(name)
    return found


ELSEWHERE = {
    "set_eligibility": "as cordon, uncordon, drain",
    "trip": "adds the freeze to a decision that quarantines; test_storm",
    "restored": "by the stateful test on SQLite, with snapshots of any age",
}
"""Deciding functions that are played by another name."""

COMMANDS = _BY_THE_MANAGER | (_deciding() - ELSEWHERE.keys())
"""Every command there is: whoever adds one has to play it in both, or a test fails."""

REGISTERS = {"register"}
RELEASES = {"release", "approve_release"}
ELIGIBILITY = {"cordon", "uncordon", "drain"}
CLEARS_WORK = {"register", "release", "approve_release"}
FORGETS = {"evict"}


def broken_by(
    command: str, before: Mapping[str, WorkerRecord], after: Mapping[str, WorkerRecord]
) -> list[str]:
    """What this step changed that it must not."""
    found = []
    for worker_id, was in before.items():
        now = after.get(worker_id)
        if now is None:
            if command not in FORGETS or was.confined:
                found.append(f"3: {command} forgot {worker_id}")
        elif now != was:
            found += _changed(command, was, now)
    for worker_id in after.keys() - before.keys():
        if command not in REGISTERS:
            found.append(f"{command} made {worker_id}")
    return found


def leased_wrongly(command: str, decision: Decision, before: LedgerState) -> list[str]:
    """An offer leases nothing by itself, and keeps its run for its worker."""
    found = []
    for record in decision.records:
        if isinstance(record, WorkerLease) and record.lease_id not in before.leases:
            if command != "grant_lease":
                found.append(f"{command} gave a lease")
            if before.workers[record.worker_id].demand is not None:
                found.append(f"{command} gave a lease to a worker that must attest first")
            offer = before.placing.offer_of(record.run_id)
            if offer is not None and offer.worker_id != record.worker_id:
                found.append(f"{command} gave a run that is offered to another worker")
    made = {offer.offer_id for offer in decision.offers} - before.placing.offers.keys()
    if made and command != "place":
        found.append(f"{command} made an offer")
    return found


def _changed(command: str, was: WorkerRecord, now: WorkerRecord) -> list[str]:
    found = []
    if command == "label":
        if replace(now, labels=was.labels) != was:
            found.append("label changed more than labels")
    elif was.labels != now.labels:
        found.append(f"{command} changed labels")
    if was.admission is Admission.BANNED and now.admission is not Admission.BANNED:
        found.append(f"3: {command} lifted a ban")
    if was.confined and not now.confined:
        found += _freed(command, was, now)
    if was.eligibility is not now.eligibility and command not in ELIGIBILITY:
        found.append(f"7: {command} changed eligibility")
    back = was.liveness is Liveness.STALE and now.liveness is Liveness.LIVE
    if back and command not in {"heartbeat", "register"}:
        found.append(f"8: {command} made a stale worker live")
    if was.work is Work.ORPHANED and now.work is not Work.ORPHANED:
        newer = now.proof.attestation_epoch > was.proof.attestation_epoch
        if command not in CLEARS_WORK or not newer:
            found.append(f"8: {command} forgave an orphaned run")
    if was.work is Work.FAILED and now.work is not Work.FAILED and command != "reverify":
        found.append(f"8: {command} forgave failed work")
    found += _demand_changed(command, was, now)
    if now.last_fence < was.last_fence:
        found.append(f"2: {command} took a fence back")
    if now.session_epoch < was.session_epoch or now.attestation_epoch < was.attestation_epoch:
        found.append(f"{command} took an epoch back")
    return found


def _demand_changed(command: str, was: WorkerRecord, now: WorkerRecord) -> list[str]:
    """A demand is met by newer evidence, which it says the key of, or the worker is quarantined;
    until then it only becomes stricter."""
    if was.demand is None or now.confined:
        return []
    if now.demand is not None:
        longer = now.demand.due_at_unix_ms > was.demand.due_at_unix_ms
        weaker = was.demand.new_key and not now.demand.new_key
        return [f"{command} made a demand weaker"] if longer or weaker else []
    newer = now.proof.attestation_epoch > was.proof.attestation_epoch
    same_key = now.proof.key_sha256 == was.proof.key_sha256
    if command not in REGISTERS or not newer or (was.demand.new_key and same_key):
        return [f"{command} met a demand"]
    return []


def _freed(command: str, was: WorkerRecord, now: WorkerRecord) -> list[str]:
    held = was.quarantine
    newer = held is not None and now.proof.attestation_epoch > held.attestation_epoch
    old_keys = {was.proof.key_sha256} | ({held.key_sha256} if held is not None else set())
    if command not in RELEASES or not newer or now.proof.key_sha256 in old_keys:
        return [f"4: {command} freed {was.worker_id}"]
    return []


def decision_problems(decision: Decision, state: LedgerState) -> list[str]:
    """What no decision may be, whatever it was about."""
    problems = []
    of_the_fleet = {event.worker_id for event in decision.events} == {None}
    alone = decision.records or decision.offers or of_the_fleet
    if bool(decision.records) > bool(decision.events) or (decision.events and not alone):
        problems.append("9: a change without an event, or an event without a change")
    if decision.at_unix_ms < state.high_water_unix_ms:
        problems.append("11: time went back")
    for record in decision.records:
        new = isinstance(record, WorkerLease) and record.lease_id not in state.leases
        if new and (record.fence != state.highest_fence + 1 or not record.status.live):
            problems.append("2: a new lease without the next fence")
    return problems
