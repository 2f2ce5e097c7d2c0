"""A machine for Hypothesis that plays the ledger: every command, in any order, on a memory store.

It decides with the pure manager, commits to a store, then applies. After every step it asks the
auditor, checks what the step changed (`transitions`), and what only it remembers: spent grants,
fences, the caps of each lease. Numbers in comments are those of specification 20, section 1.
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from palyra_fleet.leases.approval_rules import ApprovalRules, RunAsked
from palyra_fleet.leases.records import LeaseOrder, WorkerApprovalGrant
from palyra_fleet.ledger import enrolment, freezing
from palyra_fleet.ledger.auditor import audit
from palyra_fleet.ledger.decision import Decision, EnrolledKey, EventReason, ReferenceValue
from palyra_fleet.ledger.facts import Admission, Liveness
from palyra_fleet.ledger.manager import Outcome
from tests.fakes.approval_rules import NO_RULES, OTHER_RULES, RULES
from tests.fakes.ledger_world import SCOPE, key_of
from tests.fleet.ledger.machine_base import (
    POLICY,
    persons,
    rarely,
    runs,
    some,
    workers,
)
from tests.fleet.ledger.machine_reattesting import ReattestingMachine
from tests.fleet.ledger.transitions import broken_by

answers = st.sampled_from(
    ["approve_release", "approve_release", "withdraw_release", "void_release"]
)


class LedgerMachine(ReattestingMachine):
    """The ledger on a memory store."""

    @initialize()
    def start(self) -> None:
        self.load()

    @rule(ms=st.one_of(st.integers(0, 40), st.integers(-60, 250)))
    def clock_moves(self, ms: int) -> None:
        self.now = max(0, self.now + ms)

    @rule(two_persons=st.booleans())
    def the_setting_is_changed(self, two_persons: bool) -> None:
        self.two_persons = two_persons
        self.restart()

    @rule()
    def restart(self) -> None:
        kept = self.manager.state
        self.run(self.store.close())
        self.store = self.make_store()
        self.load()
        state = self.manager.state
        now = state.high_water_unix_ms
        assert state.workers == kept.workers  # 10
        assert state.worker_by_release == kept.worker_by_release
        assert state.leases == kept.leases
        assert state.tombstones == kept.tombstones
        assert {g for g in state.grants.values() if g.usable(now)} == {
            g for g in kept.grants.values() if g.usable(now)
        }
        assert state.highest_fence == kept.highest_fence
        assert state.rules.leases == kept.rules.leases
        for one in RULES.rules:
            counts = [s.rules.in_the_last_hour(one.rule_id, now) for s in (state, kept)]
            assert counts[0] == counts[1]  # what rules gave still counts
        assert now >= self.durable_at  # whatever was decided by the time stays decided
        self.command, self.before = "restart", dict(state.workers)

    @rule()
    def nobody_heard_the_answer(self) -> None:
        """A lost response: the caller asks the same again, and nothing happens twice."""
        if self.last is not None:
            self.do(self.last[0], self.last[1]())

    @rule(really=rarely)
    def the_clock_goes_back_while_the_fleet_is_away(self, really: bool) -> None:
        """11: what a time bounds has ended."""
        if not really:
            return
        self.restart()
        self.do("end_what_time_bounds", self.manager.end_what_time_bounds(1, self.now))
        state = self.manager.state
        now = state.high_water_unix_ms
        assert (state.leases, state.grants) == ({}, {})
        assert all(w.proof.attested_until_unix_ms <= now for w in state.workers.values())

    @rule(number=st.integers(1, 3), ms=st.integers(1, 500), worker_id=workers, now=rarely)
    def trust_is_given_and_taken_back(
        self, number: int, ms: int, worker_id: str, now: bool
    ) -> None:
        """Whoever's evidence rests on what was taken back loses it, and the lease with it."""
        state, at = self.manager.state, self.manager.effective_now(self.now)
        name, device = f"proxy-{number}", f"device-{number}"
        key = EnrolledKey("proxy", name, key_of(name), device_id=device)
        self.do("enrol", enrolment.enrol(state, key, "alice", at))
        self.do("freeze", freezing.freeze(state, now, "alice", "why", at))
        self.do("unfreeze", freezing.unfreeze(state, now, "alice", "why", at))
        self.do("unfreeze", freezing.unfreeze(state, False, "alice", "why", at))
        if not now:
            return
        taken = self.do("take_back", enrolment.take_back(state, "proxy", name, "alice", "why", at))
        self.do("device_gone", enrolment.device_gone(state, device, "alice", "why", at))
        values = (ReferenceValue("image", "a" * 64),)
        withdrawn = enrolment.withdraw_references(state, values, "alice", "why", at)
        self.do("withdraw_references", withdrawn)
        for worker in state.workers.values():
            if taken and worker.proof.binding_proxy_id == name:
                assert worker.proof.attested_until_unix_ms <= at
                assert state.live_lease_of(worker.worker_id) is None

    @rule()
    def what_was_not_durable_is_read_again(self) -> None:
        """10: memory after a failed write is what is on disk, and takes no heartbeat twice."""
        kept = self.manager.state
        snapshot = self.run(self.store.reload())
        self.manager.reload(snapshot.records, snapshot.highest_fence, self.now)
        state = self.manager.state
        assert (state.workers, state.leases, state.tombstones) == (
            kept.workers,
            kept.leases,
            kept.tombstones,
        )
        for worker_id, beat in kept.beats.items():
            worker = state.workers.get(worker_id)
            if worker is not None and worker.liveness is Liveness.LIVE:
                assert state.beats[worker_id] == beat
        self.command, self.before = "restart", dict(state.workers)

    @rule(worker_id=workers, key=st.integers(0, 3), ms=st.integers(1, 500), other=workers)
    def register(self, worker_id: str, key: int, ms: int, other: str) -> None:
        identity = other if key == 3 else worker_id  # sometimes the identity of another worker
        result = self.evidence(worker_id, identity, key_of(f"{worker_id}/{key}"), ms)
        self.do("register", self.manager.register(result, self.now))

    @rule(digest=st.sampled_from(["policy-1", "policy-2"]))
    def a_proxy_says_its_policy(self, digest: str) -> None:
        self.do("hear_policy", self.manager.hear_policy("proxy-1", digest, self.now))

    @rule(worker_id=workers, session_off=st.sampled_from([0, 0, 0, -1]))
    def heartbeat(self, worker_id: str, session_off: int) -> None:
        self.seq += 1
        session = self.session(worker_id) + session_off
        done = self.do("heartbeat", self.manager.heartbeat(worker_id, session, self.seq, self.now))
        assert not (done and session_off)

    @rule(run_id=runs, ms=st.integers(1, 400))
    def create_grant(self, run_id: str, ms: int) -> None:
        end = self.manager.effective_now(self.now) + ms
        grant = WorkerApprovalGrant(self.next_id(), run_id, "tool", "who", "profile", end, "alice")
        self.grant_ends[grant.grant_id] = end
        self.do("create_grant", self.manager.create_grant(grant, "alice", self.now))

    @rule(worker_id=workers, run_id=runs, tool=st.sampled_from(["tool", "tool", "other"]))
    def a_rule_is_asked(self, worker_id: str, run_id: str, tool: str) -> None:
        grant_id, asked = self.next_id(), RunAsked(run_id, tool, "profile")
        outcome = self.manager.approve_by_rule(
            self.rules, worker_id, self.session(worker_id), asked, grant_id, self.now
        )
        if self.do("approve_by_rule", outcome):
            grant = self.manager.state.grants[grant_id]
            self.grant_ends[grant_id] = grant.expires_at_unix_ms
            assert grant.rule is not None
            assert self.rules.still_says(grant.rule)
            assert (tool, grant.worker_id) == ("tool", worker_id)
            counts, by = self.manager.state.rules, self.rules.rules[0]
            assert counts.at_once(by.rule_id) <= by.at_once
            now = self.manager.effective_now(self.now)
            assert counts.in_the_last_hour(by.rule_id, now) <= by.uses_per_hour

    @rule(rules=st.sampled_from([RULES, OTHER_RULES, NO_RULES]))
    def rules_are_changed(self, rules: ApprovalRules) -> None:
        """What was given by what is there no more, and not used, cannot be used."""
        self.rules = rules
        self.do("rules_changed", self.manager.rules_changed(rules, self.now))
        for grant in self.manager.state.grants.values():
            assert grant.rule is None or rules.still_says(grant.rule)

    @rule(which=some, now=rarely)
    @precondition(lambda self: self.grant_ends)
    def withdraw_grant(self, which: int, now: bool) -> None:
        if not now:
            return
        grant_id = list(self.grant_ends)[which % len(self.grant_ends)]
        grant = self.run(self.store.grant(grant_id))
        if grant is None:
            return  # a restore has lost it
        outcome = self.manager.withdraw_grant(grant, "alice", "why", self.now)
        self.do("withdraw_grant", outcome)

    @rule(worker_id=workers, run_id=runs, ttl_ms=st.integers(1, 300))
    def ask(self, worker_id: str, run_id: str, ttl_ms: int) -> None:
        now = self.manager.effective_now(self.now)
        grant = self.manager.state.usable_grant(run_id, now)
        grant_id = None if grant is None else grant.grant_id
        order, session = LeaseOrder(run_id, ttl_ms, (), SCOPE), self.session(worker_id)

        def asked() -> Outcome:
            return self.manager.grant_lease(
                worker_id, session, grant_id, order, self.next_id(), "5" * 64, self.now
            )

        self.last = ("grant_lease", asked)
        self.do("grant_lease", asked())

    @rule(worker_id=workers, run_id=runs, ms=st.integers(20, 300), ttl_ms=st.integers(1, 300))
    def work_begins(self, worker_id: str, run_id: str, ms: int, ttl_ms: int) -> None:
        """Random steps rarely line up to a lease, so help: evidence, a grant, and the asking."""
        if worker_id not in self.manager.state.workers:
            self.register(worker_id, 0, ms, worker_id)
        elif not self.manager.state.workers[worker_id].confined:
            self.register_with(self.manager.state.workers[worker_id], None, ms)
        self.create_grant(run_id, ms)
        self.ask(worker_id, run_id, ttl_ms)

    @rule(worker_id=workers, ms=st.integers(1, 100))
    def evidence_is_renewed_with_the_same_key(self, worker_id: str, ms: int) -> None:
        worker = self.manager.state.workers.get(worker_id)
        if worker is not None:
            self.register_with(worker, None, ms)

    @rule(worker_id=workers, ms=st.integers(1, 100), own_key=st.sampled_from([True, True, False]))
    def the_session_goes_on(self, worker_id: str, ms: int, own_key: bool) -> None:
        worker = self.manager.state.workers.get(worker_id)
        if worker is None:
            return
        current = (worker.candidate or worker.proof).public_key
        key = current if own_key else key_of(f"another/{worker_id}")
        done = self.register_with(worker, key, ms, continues=True)
        assert not done or own_key  # whoever registered last holds the worker
        if done:
            now = self.manager.state.workers[worker_id]
            assert now.session_epoch == worker.session_epoch + 1
            if not worker.confined:
                assert (now.work, now.admission) == (worker.work, worker.admission)  # 8

    @rule(which=some, ttl_ms=st.one_of(st.none(), st.integers(1, 300)))
    @precondition(lambda self: self.manager.state.leases)
    def renew(self, which: int, ttl_ms: int | None) -> None:
        lease = self.live(which)
        session = self.session(lease.worker_id)
        outcome = self.manager.renew_lease(
            lease.worker_id, session, lease.lease_id, lease.fence, ttl_ms, self.now
        )
        self.do("renew_lease", outcome)

    @rule(which=some)
    @precondition(lambda self: self.manager.state.leases)
    def start_lease(self, which: int) -> None:
        lease = self.live(which)
        session = self.session(lease.worker_id)
        outcome = self.manager.start_lease(
            lease.worker_id, session, lease.lease_id, lease.fence, self.now
        )
        self.do("start_lease", outcome)

    @rule(which=some, clean=st.booleans())
    @precondition(lambda self: self.manager.state.leases)
    def complete(self, which: int, clean: bool) -> None:
        lease = self.live(which)
        session = self.session(lease.worker_id)

        def completed() -> Outcome:
            return self.manager.complete_lease(
                lease.worker_id, session, lease.lease_id, lease.fence, clean, self.now
            )

        self.last = ("complete_lease", completed)
        self.do("complete_lease", completed())

    @rule(which=some)
    @precondition(lambda self: self.manager.state.leases)
    def a_leased_worker_is_caught(self, which: int) -> None:
        reason = EventReason.QUARANTINED_BY_EGRESS
        who = self.live(which).worker_id
        outcome = self.manager.quarantine(who, "p", "why", self.now, reason, "d" * 64)
        self.do("quarantine", outcome)

    @rule(which=st.integers(0, 50), clean=st.booleans())
    @precondition(lambda self: self.seen_ended)
    def use_a_stale_fence(self, which: int, clean: bool) -> None:
        ended = sorted(self.seen_ended)
        lease = self.all_leases[ended[which % len(ended)]]
        who, session = lease.worker_id, self.session(lease.worker_id)
        for outcome in (
            self.manager.complete_lease(who, session, lease.lease_id, lease.fence, clean, self.now),
            self.manager.start_lease(who, session, lease.lease_id, lease.fence, self.now),
            self.manager.renew_lease(who, session, lease.lease_id, lease.fence, None, self.now),
        ):
            assert not isinstance(outcome, Decision)  # 6

    @rule()
    def reap(self) -> None:
        self.do("reap", self.manager.reap(self.now))
        state, now = self.manager.state, self.manager.effective_now(self.now)
        assert all(lease.expires_at_unix_ms > now for lease in state.leases.values())
        for worker_id in state.lease_by_worker:
            demand = state.workers[worker_id].demand
            assert demand is None or demand.due_at_unix_ms > now

    @rule(which=some, now=rarely)
    @precondition(lambda self: self.manager.state.leases)
    def revoke(self, which: int, now: bool) -> None:
        if now:
            lease_id = self.live(which).lease_id
            self.do("revoke_lease", self.manager.revoke_lease(lease_id, "alice", "why", self.now))

    @rule(worker_id=workers, verb=st.sampled_from(["release", "reverify", "uncordon", "uncordon"]))
    def operator_lets_go(self, worker_id: str, verb: str) -> None:
        self.do(verb, getattr(self.manager, verb)(worker_id, "alice", "why", self.now))

    @rule(worker_id=workers, who=persons, help_out=st.booleans())
    def somebody_asks_for_a_release(self, worker_id: str, who: str, help_out: bool) -> None:
        """Random keys rarely line up, so help half of the time."""
        worker = self.manager.state.workers.get(worker_id)
        if help_out and worker is not None and worker.admission is Admission.QUARANTINED:
            self.ids += 1
            self.register_with(worker, key_of(f"asked/{self.ids}"), 500)
        release_id = self.next_id()
        outcome = self.manager.request_release(worker_id, release_id, who, "why", self.now)
        if self.do("request_release", outcome):
            self.asked_by[release_id] = who
            self.asked_on[release_id] = self.manager.state.workers[worker_id]

    @rule(which=some, who=persons, verb=answers)
    @precondition(lambda self: self.asked_by)
    def a_request_is_answered(self, which: int, who: str, verb: str) -> None:
        """Any that there ever was: of those that are over, none counts."""
        release_id = list(self.asked_by)[-1 - which % len(self.asked_by)]
        state = self.manager.state
        worker_id = state.worker_by_release.get(release_id)
        if verb == "void_release":
            self.do("void_release", self.manager.void_release(worker_id or "", who, "", self.now))
            assert release_id not in self.manager.state.worker_by_release
            return
        done = self.do(verb, getattr(self.manager, verb)(release_id, who, "why", self.now))
        assert not done or worker_id is not None
        if done and verb == "approve_release" and worker_id is not None:
            asked, now = self.asked_on[release_id], self.manager.state.workers[worker_id]
            assert self.asked_by[release_id] != who
            assert now.proof == asked.candidate
            assert asked.quarantine == self.before[worker_id].quarantine
        if done:
            assert release_id not in self.manager.state.worker_by_release

    @rule(worker_id=workers, verb=st.sampled_from(["quarantine", "cordon", "evict"]), now=rarely)
    def operator_takes_hold(self, worker_id: str, verb: str, now: bool) -> None:
        if now:
            self.do(verb, getattr(self.manager, verb)(worker_id, "alice", "why", self.now))

    @rule(
        worker_id=workers,
        labels=st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "1", "2"])),
        remove=st.sets(st.sampled_from("abc")),
    )
    def operator_labels(self, worker_id: str, labels: dict[str, str], remove: set[str]) -> None:
        before = self.manager.state.workers.get(worker_id)
        outcome = self.manager.label(worker_id, labels, remove, "alice", "why", self.now)
        if self.do("label", outcome) and before is not None:
            left = {key: value for key, value in before.labels if key not in remove}
            assert dict(self.manager.state.workers[worker_id].labels) == left | labels

    @rule(worker_id=workers, new_key=st.booleans(), now=rarely)
    def release_on_evidence_from_before_the_last_quarantine(
        self, worker_id: str, new_key: bool, now: bool
    ) -> None:
        worker = self.manager.state.workers.get(worker_id)
        if not now or worker is None or worker.admission is Admission.BANNED:
            return
        self.do("quarantine", self.manager.quarantine(worker_id, "alice", "why", self.now))
        self.ids += 1
        self.register_with(worker, key_of(f"early/{self.ids}") if new_key else None, 500)
        if new_key:
            self.do("quarantine", self.manager.quarantine(worker_id, "bob", "why", self.now))
        released = self.manager.release(worker_id, "alice", "why", self.now)
        assert not isinstance(released, Decision)  # 4

    @invariant()
    def nobody_leaves_quarantine_on_one_word_where_two_are_asked(self) -> None:
        if self.two_persons and self.command == "release":
            assert self.before == self.manager.state.workers

    @rule(worker_id=workers)
    def release_after_all_it_takes(self, worker_id: str) -> None:
        """Random keys rarely line up, so help: a fresh key, then the operator."""
        worker = self.manager.state.workers.get(worker_id)
        if worker is None or worker.admission is not Admission.QUARANTINED:
            return
        self.ids += 1
        self.register_with(worker, key_of(f"fresh/{self.ids}"), 500)
        self.do("release", self.manager.release(worker_id, "alice", "why", self.now))

    @rule(worker_id=workers, deadline_ms=st.integers(1, 200), now=rarely)
    def drain(self, worker_id: str, deadline_ms: int, now: bool) -> None:
        if now:
            self.do("drain", self.manager.drain(worker_id, "alice", "why", deadline_ms, self.now))

    @rule(worker_id=workers, now=rarely, surely=rarely)
    def ban(self, worker_id: str, now: bool, surely: bool) -> None:
        if now and surely:
            self.do("ban", self.manager.ban(worker_id, "alice", "why", self.now))

    @invariant()
    def grants_are_spent_once_and_fences_grow(self) -> None:
        """1, 2; also over what a restore forgot."""
        spent = [lease.grant_id for lease in self.all_leases.values()]
        assert len(set(spent)) == len(spent)
        assert self.fences == sorted(set(self.fences))

    @invariant()
    def leases_respect_their_caps(self) -> None:
        """5, with what this test remembers and the ledger does not."""
        for lease in self.manager.state.leases.values():
            assert lease.expires_at_unix_ms <= min(
                self.grant_ends[lease.grant_id],
                self.asked_at[lease.lease_id] + POLICY.lease_max_ms,
            )

    @invariant()
    def what_changed_may_change(self) -> None:
        """3, 4, 7, 8."""
        if self.command not in {"restart", "restore"}:
            assert broken_by(self.command, self.before, self.manager.state.workers) == []

    @invariant()
    def the_auditor_has_nothing_to_tell(self) -> None:
        """1 to 5, 8, 11, and the indexes."""
        if hasattr(self, "manager"):
            assert audit(self.manager.state, POLICY) == ()

    def teardown(self) -> None:
        assert self.run(self.store.verify_events()) == self.events  # 9
        self.run(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
