"""FleetCore: decide, make durable, tell; one command at a time decides.

Every command runs under one lock and first settles what is due (expiries, missed heartbeats), so a
slow reaper lengthens nothing. A decision is applied to memory and handed to the store at once, and
the next command decides on it while it is being written: many share one sync of the disk. Nobody is
told anything, not even a refusal, before all it rests on is durable. If the store fails, memory is
read again from what is durable, and commands go one by one until it works. One whose last commit
has an unknown outcome refuses everything until the fleet is started again, and the proxies' view
ends, which denies. A command that was begun is finished even if its caller goes away.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from palyra_fleet.attestation.join_tokens import JoinTokenBook, JoinTokenFileError
from palyra_fleet.attestation.nonces import NonceBook
from palyra_fleet.clock import ForwardClock
from palyra_fleet.leases.approval_rules import ApprovalRules
from palyra_fleet.leases.records import WorkerLease
from palyra_fleet.ledger import storm
from palyra_fleet.ledger.auditor import audit_worker
from palyra_fleet.ledger.decision import (
    Decision,
    EnrolledKey,
    EventReason,
    EvictedWorker,
    LedgerEvent,
    Record,
)
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.ledger.manager import WorkerFleetManager
from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal
from palyra_fleet.service.log_end import LogEnd
from palyra_fleet.service.order_desk import OrderDesk
from palyra_fleet.service.origin import nobodys_doing, note_written, with_origin
from palyra_fleet.service.policy_desk import PolicyDesk
from palyra_fleet.service.view_hub import ViewHub
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.signals.counts import NOBODY, FleetCounts
from palyra_fleet.signals.event_lines import log_events
from palyra_fleet.signals.traffic import TrafficBook
from palyra_fleet.store.failpoints import reached
from palyra_fleet.store.protocol import (
    FleetStore,
    Pruned,
    Snapshot,
    StateUnusable,
    StoreConflict,
    StoreFailed,
)
from palyra_fleet.tasks import spawn
from palyra_fleet.violations.alarm import UnboundEvidence
from palyra_fleet.violations.silence import ProxyWatch
from palyra_fleet.wire.keys import thumbprint_sha256

_log = logging.getLogger(__name__)
JOIN_TOKENS: Final = "join-tokens.json"


async def open_store(store: FleetStore, keeper: ForwardClock) -> tuple[Snapshot, bool]:
    """Load the state and go on in its time, or refuse with what to do about it.

    The second is whether the time is sound: `ForwardClock.resume`.
    """
    try:
        snapshot = await store.open(keeper.now_unix_ms())
    except StateUnusable as error:
        raise FleetRefusal(FleetReason.STATE_UNUSABLE, str(error)) from error
    except StoreFailed as error:
        raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, str(error)) from error
    return snapshot, keeper.resume(snapshot.clock_mark, snapshot.high_water_unix_ms)


def _join_tokens(state_dir: Path) -> JoinTokenBook:
    try:
        return JoinTokenBook.open(state_dir / JOIN_TOKENS)
    except JoinTokenFileError as error:
        raise FleetRefusal(FleetReason.STATE_UNUSABLE, str(error)) from error


class FleetCore:
    """The machinery below the commands. Built from an opened store's snapshot."""

    def __init__(
        self,
        settings: FleetSettings,
        keeper: ForwardClock,
        store: FleetStore,
        snapshot: Snapshot,
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._store = store
        self._epoch = snapshot.epoch
        self._lock = asyncio.Lock()
        self._closed = False
        self._store_problem: str | None = None
        self._undurable: asyncio.Future[None] | None = None
        self._memory_ahead = False
        self._ledger_problem: str | None = None
        self._one_by_one = False
        self._reaper: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._manager = WorkerFleetManager(settings.policy)
        self._nonces = NonceBook(settings.policy.nonce_ttl_ms)
        self._log_end = LogEnd(snapshot.last_event_seq)
        self._hub = ViewHub(snapshot.epoch, snapshot.highest_fence)
        self._desk = OrderDesk(snapshot.epoch)
        self._policies = PolicyDesk()
        self._unbound_evidence = UnboundEvidence()
        self.counts = FleetCounts()
        self._traffic = TrafficBook(snapshot.high_water_unix_ms)
        self._watch = ProxyWatch(settings.policy.proxy_silence_ms, snapshot.high_water_unix_ms)
        self._join_tokens = _join_tokens(settings.state_dir)
        self._attestors = settings.file.with_launcher(self._join_tokens)
        self._rule_file = settings.approvals
        self._rules = ApprovalRules()
        self._certificate_end: Callable[[str], int | None] = _not_known
        self._launchers: dict[str, bytes] = {}
        self._proxies: dict[str, tuple[str, bytes]] = {}
        self._manager.state.load(
            snapshot.records,
            snapshot.highest_fence,
            snapshot.high_water_unix_ms,
            self._manager.heartbeat_timeout_ms(snapshot.records),
        )
        self._learn_keys(snapshot.records)
        self._hub.take(snapshot.records, snapshot.highest_fence)

    async def _begin(self, time_is_sound: bool) -> None:
        """Log the start, settle what came due meanwhile, start the reaper."""
        started = LedgerEvent(EventReason.STARTED_FLEET, "fleet", detail={"epoch": self._epoch})

        async def log_start(now_unix_ms: int) -> None:
            await self._settle(Decision(now_unix_ms, events=(started,)))
            if not time_is_sound:
                _log.error("the clock is behind the fleet's time: what a time bounds has ended")
                behind_ms = self._keeper.behind_ms()
                await self._settle(self._manager.end_what_time_bounds(behind_ms, now_unix_ms))

        await self._locked(log_start)
        await self._put_rules_in_force(
            ApprovalRules() if self._rule_file is None else self._rule_file.rules
        )
        self._reaper = spawn(self._reap_forever(), "fleet-reaper")
        if self._rule_file is not None:
            self._follower = spawn(self._follow_rules_forever(), "approval-rules")

    async def close(self) -> None:
        """Refuse new commands, finish the one under way, end the streams, close the store."""
        self._closed = True
        self._hub.close()
        self._desk.close()
        self._policies.close()
        background = [one for one in (self._reaper, self._follower) if one is not None]
        self._reaper = self._follower = None
        for task in background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        async with self._lock:
            await self._store.close()

    async def reap(self) -> None:
        """Settle every deadline up to now."""
        await self._locked(_nothing_more)

    def _now(self) -> int:
        return self._manager.effective_now(self._keeper.now_unix_ms())

    async def _locked[T](self, act: Callable[[int], Awaitable[T]]) -> T:
        task = spawn(self._guarded(act), "fleet-command")
        result = await asyncio.shield(task)
        if isinstance(result, FleetRefusal):
            raise result
        return result

    async def _guarded[T](self, act: Callable[[int], Awaitable[T]]) -> T | FleetRefusal:
        answer: T | FleetRefusal
        try:
            async with self._lock:
                if self._closed:
                    raise FleetRefusal(FleetReason.CLOSED, "the fleet is shutting down")
                await self._forget_what_was_lost()
                now_unix_ms = self._now()
                with nobodys_doing():
                    await self._settle(self._manager.reap(now_unix_ms))
                answer = await act(now_unix_ms)
        except FleetRefusal as refusal:
            answer = refusal
        except StoreFailed as failure:
            answer = self._store_refusal(failure)
        return await self._when_durable(answer)

    async def _when_durable[T](self, answer: T) -> T | FleetRefusal:
        """The answer, once everything decided before it is durable; a refusal if it is not."""
        last = self._undurable
        if last is not None:
            await asyncio.wait([last])
            failure = last.exception()
            if isinstance(failure, StoreFailed):
                return self._store_refusal(failure)
            if isinstance(failure, StoreConflict):
                return _conflict_refusal(failure)
        reached("core.durable")
        return answer

    async def _caught_up(self) -> None:
        """Return when what memory shows is durable. Raises a refusal if that cannot be."""
        if self._undurable is not None:
            await asyncio.wait([self._undurable])
        if self._memory_ahead:
            await self._locked(_nothing_more)

    async def _settle(self, outcome: Decision | Refusal) -> Decision:
        """Apply a decision and have it made durable; who it concerns is told when it is.

        Raises a refusal.
        """
        if isinstance(outcome, Refusal):
            raise FleetRefusal.of(outcome)
        decision = with_origin(storm.trip(self._manager.state, self._settings.policy, outcome))
        reached("core.decided")
        if decision.durable and self._one_by_one:
            await self._commit_alone(decision)
        elif decision.durable:
            written = self._store.submit(decision, self._keeper.mark())
            written.add_done_callback(lambda done: self._written(decision, done))
            self._undurable = written
        before = self.counts.before(decision, self._state_of)
        self._manager.apply(decision)
        self.counts.applied(decision, before, self._state_of)
        self._learn_keys(decision.records)
        self._audit(decision)
        return decision

    def _audit(self, decision: Decision) -> None:
        """Look at the workers it touched. What is wrong stops new leases, not quarantines."""
        state, policy = self._manager.state, self._settings.policy
        kept = (one for one in decision.records if isinstance(one, WorkerRecord | WorkerLease))
        for worker_id in {one.worker_id for one in (*kept, *decision.offers)}:
            for problem in audit_worker(state, policy, worker_id):
                _log.error("the ledger breaks an invariant: %s", problem)
                self._ledger_problem = problem

    def _refuse_on_ledger_problem(self) -> None:
        if self._ledger_problem is not None:
            text = (
                "the ledger breaks an invariant: no leases are given until the fleet is looked at"
            )
            raise FleetRefusal(FleetReason.STATE_UNUSABLE, text)

    def _state_of(self, worker_id: str) -> str:
        """The public state, for counting."""
        if worker_id not in self._manager.state.workers:
            return NOBODY
        return self._manager.lifecycle(worker_id, self._manager.state.high_water_unix_ms).value

    async def _commit_alone(self, decision: Decision) -> None:
        """After a failure nothing rests on what is not durable, until writing works again."""
        try:
            await self._store.commit(decision, self._keeper.mark())
        except StoreConflict as conflict:
            raise _conflict_refusal(conflict) from conflict
        self._one_by_one, self._store_problem = False, None
        self._tell(decision)

    def _written(self, decision: Decision, written: asyncio.Future[None]) -> None:
        """Called in the order of the decisions, before any of their callers is answered."""
        if written.cancelled() or written.exception() is not None:
            self._memory_ahead = True
            return
        self._store_problem = None
        self._tell(decision)

    def _tell(self, decision: Decision) -> None:
        seq = self._log_end.grown_by(len(decision.events))
        if decision.events:
            note_written(seq)  # in the context of the command, also where the store calls back
        self.counts.durable(decision, self._now())
        log_events(decision.events)
        self._hub.take(decision.records, decision.highest_fence)
        self._desk.take(decision.notices)
        for record in decision.records:
            if isinstance(record, WorkerRecord):
                self._desk.look(record.worker_id)
            if isinstance(record, EvictedWorker):
                self._desk.forget(record.worker_id)
            if isinstance(record, EnrolledKey) and record.kind == "proxy" and record.revoked:
                self._policies.forget(record.name)

    async def _forget_what_was_lost(self) -> None:
        """Read memory again if it holds what could not be made durable."""
        if not self._memory_ahead:
            return
        self._one_by_one = True
        snapshot = await self._store.reload()
        self._log_end.read_again(snapshot.last_event_seq)
        self._manager.reload(snapshot.records, snapshot.highest_fence, self._now())
        self._launchers, self._proxies = {}, {}
        self._learn_keys(snapshot.records)
        self._memory_ahead, self._undurable = False, None
        self._desk.look_at_all()

    async def _put_rules_in_force(self, rules: ApprovalRules) -> None:
        """What no rule of these gave, and nobody used, is taken back in the same decision."""

        async def act(now: int) -> None:
            unused = self._manager.state.rules.unused
            if rules.file_sha256 or unused:
                await self._settle(self._manager.rules_changed(rules, now))
            self._rules = rules

        await self._locked(act)

    async def _look_at_rules(self) -> None:
        """Follow the file of approval rules; the last good ones stay in force."""
        if self._rule_file is None:
            return
        before = self._rule_file.problem
        await asyncio.to_thread(self._rule_file.poll)
        if self._rule_file.problem not in {None, before}:
            _log.error("approval rules are not followed: %s", self._rule_file.problem)
        if self._rule_file.rules != self._rules:
            await self._put_rules_in_force(self._rule_file.rules)

    async def _settle_suspensions(self, now_unix_ms: int) -> None:
        """Suspend and resume egress by what is heard of proxies; proxies are told at once."""
        wanted = self._watch.wanted(self._manager.state, now_unix_ms)
        changed = self._watch.change(wanted, now_unix_ms)
        self._hub.suspend(frozenset(wanted))
        if changed is not None:
            await self._settle(changed)

    def tell_certificates(self, of: Callable[[str], tuple[str, ...]]) -> None:
        """Tell proxies which certificates each worker may show them."""
        self._hub.tell_certificates(of)

    def tell_certificate_ends(self, of: Callable[[str], int | None]) -> None:
        """From now on `of` says until when a device's certificate is good. Without it no device is
        known to have one, and no worker is admitted from a device."""
        self._certificate_end = of

    def look_at_certificates(self) -> None:
        """Some may have changed: tell what is new."""
        self._hub.look_at_certificates()

    def _store_refusal(self, failure: StoreFailed) -> FleetRefusal:
        self._store_problem = str(failure)
        if failure.ambiguous:
            self._hub.close()
        text = "the store cannot make the decision durable; nobody was told"
        return FleetRefusal(FleetReason.STORE_UNAVAILABLE, text)

    def _learn_keys(self, records: tuple[Record, ...]) -> None:
        for record in records:
            if isinstance(record, EnrolledKey):
                self._learn_key(record)

    async def prune(self) -> Pruned:
        """Forget what finished long ago, one step after another. Raises a refusal."""
        leases = grants = events = 0
        try:
            while True:
                step = await self._store.prune(self._settings.retention, self._now())
                leases, grants = leases + step.leases, grants + step.grants
                events += step.events
                if not step.more:
                    return Pruned(leases, grants, events)
        except StoreFailed as failure:
            raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, str(failure)) from failure
        except StoreConflict as conflict:
            raise _conflict_refusal(conflict) from conflict

    def _learn_key(self, key: EnrolledKey) -> None:
        """Who is enrolled, by the key's thumbprint."""
        thumbprint = thumbprint_sha256(key.public_key)
        if key.revoked:
            self._launchers.pop(thumbprint, None)
            self._proxies.pop(thumbprint, None)
        elif key.kind == "launcher":
            self._launchers[thumbprint] = key.public_key
        else:
            self._proxies[thumbprint] = (key.name, key.public_key)

    async def _follow_rules_forever(self) -> None:
        """Apart from the reaper, which a large file must not hold up."""
        while True:
            await asyncio.sleep(self._settings.reap_every_ms / 1000)
            try:
                await self._look_at_rules()
            except FleetRefusal as refusal:
                _log.warning("approval rules could not be put in force: %s", refusal.text)

    async def _reap_forever(self) -> None:
        prune_at = self._now() + self._settings.prune_every_ms
        while True:
            await asyncio.sleep(self._settings.reap_every_ms / 1000)
            try:
                await self._locked(self._settle_suspensions)
                if self._now() >= prune_at:
                    prune_at = self._now() + self._settings.prune_every_ms
                    await self.prune()
            except FleetRefusal as refusal:
                _log.warning("deadlines or old records could not be settled: %s", refusal.text)


def _not_known(device_id: str) -> None:
    del device_id


async def _nothing_more(now_unix_ms: int) -> None:
    del now_unix_ms


def _conflict_refusal(conflict: StoreConflict) -> FleetRefusal:
    _log.error("the store refused a decision: %s", conflict)
    text = "the store refused the decision; nothing was changed"
    return FleetRefusal(FleetReason.STORE_UNAVAILABLE, text)
