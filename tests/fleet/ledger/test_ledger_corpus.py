"""The `ledger_scenario` cases of the shared corpus, played step by step on the pure ledger.

Every expectation of the corpus has one row in `_EXPECTATIONS`; a case with an unknown step or an
expectation without a row fails, so no case is skipped unexplained.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.manager import Outcome, WorkerFleetManager
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.refusals import FleetReason, Refusal
from tests.fakes.fleet_evidence import compatible_attestation, expectation_for
from tests.fakes.ledger_world import LedgerWorld, attested, reasons, ulid

ROOT = Path(__file__).resolve().parents[3]
CORPORA = Path(os.environ.get("PALYRA_CORPORA", ROOT.parent / "shared" / "corpora"))
FILE = CORPORA / "seed_scenarios.jsonl"
WORKER = ulid(1)


def _cases() -> list[Any]:
    if not FILE.exists():
        skip = pytest.mark.skip(reason="the shared corpora are not here; set PALYRA_CORPORA")
        return [pytest.param(None, marks=skip, id="corpora-absent")]
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    return [pytest.param(r, id=r["id"]) for r in rows if r["kind"] == "ledger_scenario"]


@dataclass(slots=True)
class Step:
    """What one step led to: the events, the refusal, the state and heartbeat liveness after."""

    verb: str
    events: list[str]
    refusal: Refusal | None
    state: str | None


@dataclass(slots=True)
class Play:
    """Plays the corpus notation: `verb[@time] [key=value …]`, and settings like `timeout=100`."""

    world: LedgerWorld = field(default_factory=LedgerWorld)
    now: int = 1_990
    timeout_ms: int = 1_000_000
    leases: list[WorkerLease] = field(default_factory=list)
    registrations: int = 0
    beats: int = 0
    runs: int = 0
    steps: list[Step] = field(default_factory=list)
    trusted: tuple[str, ...] = ()

    def step(self, text: str) -> None:
        if match := re.fullmatch(r"timeout=(\d+)", text):
            self.timeout_ms = int(match[1])
            return
        verb, at = re.fullmatch(r"([a-z-]+)(?:@(\d+))?", text.split(maxsplit=1)[0]).groups()  # type: ignore[union-attr]
        claims = re.search(r"claims heartbeat@\d+", text)
        options = dict(re.findall(r"([a-z_]+)=(\S+)", text))
        self.now = int(at) if at else self.now + 10
        policy = WorkerFleetPolicy(
            heartbeat_timeout_ms=self.timeout_ms,
            trusted_capabilities=frozenset(_names(options.get("trusted", ""))),
        )
        if verb == "register" or not self.steps:
            self.world.manager = WorkerFleetManager(policy, self.world.manager.state)
        outcome = self._run(verb, options)
        assert claims is None or verb == "register"  # a claimed time has no way in
        if isinstance(outcome, Decision):
            self.world.do(outcome)
        self._note(verb, outcome)

    def _note(self, verb: str, outcome: Outcome) -> None:
        known = WORKER in self.world.manager.state.workers
        state = self.world.manager.lifecycle(WORKER, self.now).value if known else None
        events = reasons(outcome) if isinstance(outcome, Decision) else []
        refusal = outcome if isinstance(outcome, Refusal) else None
        self.steps.append(Step(verb, events, refusal, state))

    def _run(self, verb: str, options: dict[str, str]) -> Outcome:
        manager, now = self.world.manager, self.now
        match verb:
            case "register" | "re-attest":
                return self._register(options)
            case "assign":
                return self._assign(options)
            case "complete":
                fence = int(options.get("fence", len(self.leases)))
                clean = options.get("cleanup", "all") == "all"
                return self.world.complete(self.leases[fence - 1], now, clean)
            case "expire":
                self.now = self.leases[-1].expires_at_unix_ms
                return manager.reap(self.now)
            case "reap" | "stale":
                return manager.reap(now)
            case "heartbeat":
                self.beats += 1
                session = self.world.worker(WORKER).session_epoch
                return manager.heartbeat(WORKER, session, self.beats, now)
            case "quarantine" | "uncordon" | "reverify":
                return getattr(manager, verb)(WORKER, "alice", "because", now)  # type: ignore[no-any-return]
            case "drain":
                return manager.drain(WORKER, "alice", "because", 60_000, now)
        raise AssertionError(f"unknown step {verb}")

    def _register(self, options: dict[str, str]) -> Outcome:
        attestation = compatible_attestation(WORKER, **options)
        refusal = attestation.validate(expectation_for(attestation), self.now)
        if refusal is not None:
            return refusal
        capabilities = _names(options.get("caps", ""))
        result = attested(WORKER, capabilities=capabilities, now_unix_ms=self.now)
        return self.world.manager.register(result, self.now)

    def _assign(self, options: dict[str, str]) -> Outcome:
        self.runs += 1
        run_id = f"run-{self.runs}"
        self.world.grant(run_id, self.now)
        required = _names(options.get("required", ""))
        ttl_ms = int(options.get("ttl", 1_000))
        outcome = self.world.ask(WORKER, run_id, self.now, ttl_ms, required)
        if isinstance(outcome, Decision):
            self.leases += [r for r in outcome.records if isinstance(r, WorkerLease)]
            if "fence" in options:
                assert self.leases[-1].fence == int(options["fence"])
        return outcome

    def emitted(self, reason: str, state: str | None = None) -> bool:
        return any(reason in s.events and state in {None, s.state} for s in self.steps)

    def last_refused(self, reason: FleetReason, text: str = "") -> bool:
        refusal = self.steps[-1].refusal
        return refusal is not None and refusal.reason is reason and text in refusal.text


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.strip("[]").split(",") if name)


def _quarantined_after_each(play: Play) -> bool:
    after = [s.state for s in play.steps if s.verb not in {"register", "assign"}]
    return len(after) == 6 and set(after) == {"quarantined"}


def _zombie(play: Play) -> bool:
    live = play.world.manager.state.live_lease_of(WORKER)
    return play.last_refused(FleetReason.STALE_FENCE) and live == play.leases[1]


def _abi(play: Play) -> bool:
    text = "worker compatibility check failed"
    known = WORKER in play.world.manager.state.workers
    return play.last_refused(FleetReason.INCOMPATIBLE, text) and not known


_NO_WORKER = "no attested worker is available for the requested capabilities"

_EXPECTATIONS: dict[str, Callable[[Play], bool]] = {
    "worker.registered": lambda p: p.emitted("worker.registered"),
    "worker.assigned": lambda p: p.emitted("worker.assigned"),
    "worker.completed": lambda p: p.emitted("worker.completed", "available"),
    "worker.ttl_expired -> orphaned": lambda p: p.emitted("worker.ttl_expired", "orphaned"),
    "worker.cleanup_failed -> quarantined": lambda p: p.emitted(
        "worker.cleanup_failed", "quarantined"
    ),
    "refused: fail-closed": lambda p: p.last_refused(FleetReason.WORKER_QUARANTINED),
    "worker.heartbeat_stale -> orphaned": lambda p: p.emitted("worker.heartbeat_stale", "orphaned"),
    "heartbeat does not revive": lambda p: p.steps[-1].state == "orphaned",
    "worker.heartbeat_stale -> offline": lambda p: p.emitted("worker.heartbeat_stale", "offline"),
    "back": lambda p: p.steps[2].state == "available",
    "assigned": lambda p: p.steps[-1].state == "assigned",
    "quarantined after each step": _quarantined_after_each,
    "refused: draining": lambda p: p.last_refused(FleetReason.DRAINING),
    "offline": lambda p: p.steps[-1].state == "offline",
    "refused: stale fence; lease 2 untouched": _zombie,
    f"refused: {_NO_WORKER}": lambda p: p.last_refused(FleetReason.NO_WORKER, _NO_WORKER),
    "refused: worker compatibility check failed; not registered": _abi,
}


@pytest.mark.parametrize("case", _cases())
def test_every_ledger_scenario_of_the_corpus_ends_as_expected(case: dict[str, Any]) -> None:
    play = Play()
    for text in case["input"]:
        play.step(text)
    for expected in case["expected"]:
        assert _EXPECTATIONS[expected](play), (expected, play.steps)
