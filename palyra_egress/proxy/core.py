"""The enforcing core: every decision of the proxy, independent of the lane that carries the bytes.

For a request the core asks, in this order: is the proxy ready, has this worker requests left, does
the judge say that a rule could allow it, what does the name resolve to, does the judge allow these
addresses. The audit entry is written before the verdict is released. A refusal that costs the
worker its freedom blocks it here first, cuts its other connections, and puts signed evidence into
the durable spool, all before the refusal is answered.
Invariants: unknown means deny; one verdict, one audit entry; infrastructure faults never strike.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final

from ulid import ULID

from palyra_egress.audit.entries import (
    early_entry,
    receipt_entry,
    transfer_entry,
    unanswered_entry,
    verdict_entry,
)
from palyra_egress.audit.log import AuditLog, AuditUnavailable
from palyra_egress.credentials.binding import CredentialBinding, NoSecrets, SecretLookup
from palyra_egress.credentials.injection import (
    BindingRefused,
    Injected,
    OfferedHeader,
    inject,
    nothing_offered,
)
from palyra_egress.credentials.leak_detector import LeakDetector
from palyra_egress.credentials.request_scan import Leak
from palyra_egress.destination.resolver import ResolutionRefused, Resolver
from palyra_egress.policy.compile import rule_account
from palyra_egress.proxy.bindings import Authentication, BindingView, Ended
from palyra_egress.proxy.bounds.budgets import ByteBudgets, Direction, account_key
from palyra_egress.proxy.bounds.openings import Openings
from palyra_egress.proxy.bounds.rates import RequestRates, SharedRate
from palyra_egress.proxy.bounds.shares import Shares
from palyra_egress.proxy.channels.channel import Channel
from palyra_egress.proxy.clocks import Clocks
from palyra_egress.proxy.connections import ConnectionTable, LiveConnection
from palyra_egress.proxy.evidence import EvidenceSpool, SpoolUnavailable, violation_of
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.proxy.signals.signals import Signals
from palyra_egress.proxy.tls.server_tls import ServerTlsLookup
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.service import EgressProxyPolicyService
from palyra_egress.verdict import (
    Consequence,
    NeedsResolution,
    Verdict,
)

NO_SECRETS: Final = NoSecrets()
RECEIPTS_PER_MINUTE: Final = 1_200
STRANGERS_PER_MINUTE: Final = 6_000
STRANGERS_PER_SOURCE: Final = 3_000
REFUSALS_PER_MINUTE: Final = 600
SLOWED_REFUSAL_S: Final = 1.0


class Phase(StrEnum):
    """STARTING and STOPPING refuse everything; only READY asks the judge."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(slots=True)
class EnforcementCore:
    """One per proxy process, shared by all its connections."""

    proxy_id: str
    service: EgressProxyPolicyService
    view: BindingView
    audit: AuditLog
    spool: EvidenceSpool
    resolver: Resolver
    clocks: Clocks
    server_tls: ServerTlsLookup
    secrets: SecretLookup = NO_SECRETS
    judge_deadline_s: float = 8.0
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    phase: Phase = Phase.STARTING
    connections: ConnectionTable = field(default_factory=ConnectionTable)
    shares: Shares = field(default_factory=Shares)
    openings: Openings = field(default_factory=Openings)
    evidence_waiting: asyncio.Event = field(default_factory=asyncio.Event)
    signals: Signals = field(default_factory=Signals)
    leaks: LeakDetector = field(init=False)
    _rates: RequestRates = field(default_factory=RequestRates)
    _bytes: ByteBudgets = field(default_factory=ByteBudgets)
    _strangers: SharedRate = field(default_factory=SharedRate)
    _unanswered: int = 0

    def __post_init__(self) -> None:
        self.leaks = LeakDetector(self.secrets)

    # --- may anybody speak, and who is it -------------------------------------------------------

    def admission(self) -> Reason | None:
        """Why the proxy carries nothing at all right now, or None."""
        if self.phase is Phase.STARTING:
            return Reason.NOT_READY
        if self.phase is Phase.STOPPING:
            return Reason.STOPPING
        if self.audit.broken or self.spool.broken:
            return Reason.AUDIT_UNAVAILABLE
        return None

    def may_speak(self, requester: Requester) -> Reason | None:
        """Whether an identity that was verified earlier still holds; asked on every request."""
        return self.admission() or self.view.may_speak(
            requester, self.clocks.now_unix_ms(), self.clocks.now_monotonic_ms()
        )

    def _may_speak_on(self, speaker: LiveConnection, requester: Requester) -> Reason | None:
        """The same, of a requester on the connection where it asks: its channel must hold too."""
        if (reason := self.may_speak(requester)) is not None or speaker.channel is None:
            return reason
        return self.view.channel_refusal(speaker.channel, requester, self.clocks.now_unix_ms())

    def authenticate(self, lease_id: str, secret: str) -> Authentication:
        """Verify proxy credentials against the live view."""
        if (reason := self.admission()) is not None:
            return Authentication(None, reason)
        return self.view.authenticate(
            lease_id, secret, self.clocks.now_unix_ms(), self.clocks.now_monotonic_ms()
        )

    def recognise(self, channel: Channel) -> Authentication:
        """Who speaks on a channel, against the live view."""
        if (reason := self.admission()) is not None:
            return Authentication(None, reason)
        return self.view.recognise(
            channel, self.clocks.now_unix_ms(), self.clocks.now_monotonic_ms()
        )

    # --- the decision ---------------------------------------------------------------------------

    async def judge(
        self,
        request: EgressRequest,
        known: tuple[str, ...] | None,
        declared_body_bytes: int | None,
        speaker: LiveConnection,
        offered: OfferedHeader = nothing_offered,
    ) -> Judgement:
        """Decide about one request, audit it, and act on it.

        `known` are the addresses that would be used without a new look-up (the answer its CONNECT
        was judged on, or an open upstream); `declared_body_bytes` is its Content-Length, if any;
        `offered` gives the worker's values of a header.
        """
        started = self.clocks.now_monotonic_ms()
        self.signals.traces.asked(offered)
        addresses: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(self.judge_deadline_s):
                verdict, addresses, request = await self._decide(request, known, speaker)
        except TimeoutError:
            verdict = self.service.refusal(request, Reason.DEADLINE)
        except ResolutionRefused as refused:
            verdict = self.service.refusal(request, refused.reason)
        injected: tuple[Injected, ...] = ()
        server_tls = self.server_tls.find(verdict.upstream_tls)
        has_none = server_tls is None or (verdict.upstream_tls.named and request.scheme != "https")
        if verdict.allowed and has_none:
            verdict = self._unable(verdict, request, Reason.UPSTREAM_TLS_UNAVAILABLE)
        if verdict.allowed and verdict.credentials:
            verdict, injected = self._bind(verdict, request, offered)
        if verdict.allowed:
            reason = self._budget_problem(verdict, request, declared_body_bytes or 0)
            if reason is not None:
                verdict, injected = self.service.refusal(request, reason), ()
        judgement = self._release(verdict, request, addresses, started, speaker, injected)
        return replace(judgement, server_tls=server_tls) if judgement.allowed else judgement

    async def slow_down(self, judgement: Judgement, requester: Requester | None) -> None:
        """A worker that is refused all the time waits for its refusals: each costs us as much as an
        allowed request, and it must not cost the others their turn. An end waits for nothing."""
        if judgement.allowed or judgement.close or requester is None:
            return
        key, now_monotonic_ms = f"refusals/{requester.worker_id}", self.clocks.now_monotonic_ms()
        if not self._rates.take(key, REFUSALS_PER_MINUTE, now_monotonic_ms):
            await self.pause(SLOWED_REFUSAL_S)

    def _bind(
        self, verdict: Verdict, request: EgressRequest, offered: OfferedHeader
    ) -> tuple[Verdict, tuple[Injected, ...]]:
        """What is put into the request's headers; a refusal names the rule and the binding."""
        if request.scheme != "https":  # no file says so; a secret never depends on that
            return self.service.refusal(request, Reason.SCHEME_NOT_ALLOWED), ()
        found = inject(verdict.credentials, self.secrets, offered)
        if not isinstance(found, BindingRefused):
            return verdict, found
        return self._unable(verdict, request, found.reason, found.binding), ()

    def _unable(
        self, verdict: Verdict, request: EgressRequest, reason: Reason, *named: CredentialBinding
    ) -> Verdict:
        """A refusal of what a rule allows and we cannot do: the rule, and what is missing."""
        refusal = self.service.refusal(request, reason)
        place = {name: getattr(verdict, name) for name in ("rule_id", "policy_file", "line")}
        return refusal._replace(credentials=named, upstream_tls=verdict.upstream_tls, **place)

    def _budget_problem(
        self, verdict: Verdict, request: EgressRequest, declared_body_bytes: int
    ) -> Reason | None:
        """Whether the budgets have room for this request: its size, then the hours of rule, profile
        and file, then the rule's own rate, and the worker's of new leaves."""
        limits, now = verdict.limits, self.clocks.now_monotonic_ms()
        worker_id = request.requester.worker_id
        if limits.max_request_bytes is not None and declared_body_bytes > limits.max_request_bytes:
            return Reason.REQUEST_TOO_LARGE
        if not self._bytes.have_room(verdict.accounts, worker_id, declared_body_bytes, now):
            return Reason.BUDGET_SPENT
        key = account_key(rule_account(verdict.rule_id), worker_id)
        if not (
            self._rates.take(key, limits.requests_per_minute, now)
            and self.openings.may_mint(verdict, request, now)
        ):
            return Reason.RATE_LIMITED
        return None

    def spend(self, judgement: Judgement, direction: Direction, count: int) -> bool:
        """Count body bytes that pass under a judgement; False once any hour is spent."""
        self.signals.passed(judgement.worker_id, direction, count)
        if not judgement.accounts:
            return True
        now = self.clocks.now_monotonic_ms()
        return self._bytes.spend(judgement.accounts, judgement.worker_id, direction, count, now)

    def refuse(self, request: EgressRequest, reason: Reason, speaker: LiveConnection) -> Judgement:
        """Refuse a canonical request for a reason found outside the judge."""
        started, request = self.clocks.now_monotonic_ms(), self.with_facts(request)
        return self._release(self.service.refusal(request, reason), request, (), started, speaker)

    def refuse_leak(self, request: EgressRequest, leak: Leak, speaker: LiveConnection) -> Judgement:
        """Refuse a request, redacted already, of which something may not leave."""
        started, found = self.clocks.now_monotonic_ms(), leak.finding
        canary_id = found.name if found is not None and found.reason is Reason.CANARY else None
        verdict = self.service.refusal(request, leak.reason, canary_id)
        return self._release(verdict, request, (), started, speaker, leak=leak)

    async def _decide(
        self, request: EgressRequest, known: tuple[str, ...] | None, speaker: LiveConnection
    ) -> tuple[Verdict, tuple[str, ...], EgressRequest]:
        """The verdict, the addresses and the request with the facts that it was judged on."""
        if (reason := self._may_speak_on(speaker, request.requester)) is not None:
            return self.service.refusal(request, reason), (), request
        if not self._has_rate(request.requester):
            return self.service.refusal(request, Reason.RATE_LIMITED), (), request
        request = self.with_facts(request)
        first = self.service.precheck(request, self.clocks.now_unix_ms())
        if not isinstance(first, NeedsResolution):
            return first, (), request
        asker = request.requester.worker_id
        resolve = partial(self.resolver.resolve, first.host, first.port, asker)
        addresses = known or await self.signals.traces.timed(resolve)
        if (reason := self._may_speak_on(speaker, request.requester)) is not None:
            return self.service.refusal(request, reason), (), request
        request, now_unix_ms = self.with_facts(request), self.clocks.now_unix_ms()
        return self.service.decide(request, addresses, now_unix_ms, first), addresses, request

    def _has_rate(self, requester: Requester) -> bool:
        """Spend one request of every rate that holds for all that this worker asks."""
        now_monotonic_ms = self.clocks.now_monotonic_ms()
        taken = [
            self._rates.take(
                account_key(account.name, requester.worker_id),
                account.limits.requests_per_minute,
                now_monotonic_ms,
            )
            for account in self.service.rates(requester.profile)
        ]
        return all(taken)

    def with_facts(self, request: EgressRequest) -> EgressRequest:
        """The request with what the fleet says now about its worker."""
        facts = self.view.facts_of(request.requester)
        if facts == request.requester.facts:
            return request
        return replace(request, requester=replace(request.requester, facts=facts))

    def _release(
        self,
        verdict: Verdict,
        request: EgressRequest,
        addresses: tuple[str, ...],
        started_monotonic_ms: int,
        speaker: LiveConnection,
        injected: tuple[Injected, ...] = (),
        leak: Leak | None = None,
    ) -> Judgement:
        """Audit the verdict, carry out its consequence, and only then let it out."""
        decision_id = str(ULID())
        now = self.clocks.now_unix_ms()
        took_ms = self.clocks.now_monotonic_ms() - started_monotonic_ms
        evidence_seq: int | None = None
        try:
            carried = tuple(one.binding for one in injected)
            named = carried if verdict.allowed else verdict.credentials
            headed_for = None if speaker.destination is None else str(speaker.destination)
            self.audit.append(
                verdict_entry(
                    verdict, request, addresses, decision_id, now, took_ms, named, leak, headed_for
                )
            )
            if verdict.consequence is not Consequence.NONE and not verdict.allowed:
                evidence_seq = self._punish(verdict, request, decision_id, now, speaker)
        except (AuditUnavailable, SpoolUnavailable):
            return Judgement(Reason.AUDIT_UNAVAILABLE, decision_id, close=True)
        trace = self.signals.decided(verdict, request, decision_id, now, took_ms, evidence_seq)
        return Judgement(
            reason=verdict.reason,
            decision_id=decision_id,
            allowed=verdict.allowed,
            pinned=verdict.pinned,
            addresses=addresses,
            limits=verdict.limits,
            worker_id=request.requester.worker_id,
            accounts=verdict.accounts,
            close=verdict.consequence is Consequence.QUARANTINE,
            credentials=verdict.credentials,
            injected=injected,
            carriage=verdict.carriage,
            trace=trace,
        )

    def refuse_early(
        self, reason: Reason, requester: Requester | None, source: str = "local"
    ) -> Judgement:
        """A refusal before there is a canonical request: audited like every other.

        Strangers have a rate together, so that nobody without a lease can fill the disk, and one
        source a part of it. Beyond it there is no entry, no decision id and no answer: the
        connection is to be reset, and how many were is audited once a second.
        """
        monotonic, now = self.clocks.now_monotonic_ms(), self.clocks.now_unix_ms()
        if requester is None and not self._strangers.take(
            source, STRANGERS_PER_SOURCE, STRANGERS_PER_MINUTE, monotonic
        ):
            self._unanswered += 1
            return Judgement(Reason.RATE_LIMITED, "", close=True)
        decision_id = str(ULID())
        self.signals.refused_early(reason, requester, decision_id, now)
        try:
            digest = self.service.policy_digest
            self.audit.append(early_entry(reason, requester, decision_id, digest, now))
        except AuditUnavailable:
            return Judgement(Reason.AUDIT_UNAVAILABLE, decision_id, close=True)
        return Judgement(reason, decision_id, close=True)

    def audit_unanswered(self) -> None:
        """Write down how many strangers were cut off without an answer since the last time."""
        count, self._unanswered = self._unanswered, 0
        if not count:
            return
        try:
            self.audit.append(unanswered_entry(count, self.clocks.now_unix_ms()))
        except AuditUnavailable:
            self.connections.cut_everything(Reason.AUDIT_UNAVAILABLE)

    def receipt_refusal(self, worker_key_sha256: str) -> Reason | None:
        """Audit a receipt before it leaves; why it may not leave, or None. Anybody can ask for one,
        so all of them together have a rate."""
        now_monotonic_ms = self.clocks.now_monotonic_ms()
        if not self._rates.take("receipts", RECEIPTS_PER_MINUTE, now_monotonic_ms):
            return Reason.RATE_LIMITED
        try:
            now = self.clocks.now_unix_ms()
            self.audit.append(receipt_entry(worker_key_sha256, self.service.policy_digest, now))
        except AuditUnavailable:
            return Reason.AUDIT_UNAVAILABLE
        return None

    def transferred(
        self,
        decision_id: str,
        outcome: str,
        sent: int,
        received: int,
        ms: int,
        frames: tuple[int, int] | None = None,
    ) -> None:
        """The end of an allowed exchange: bytes each way, duration, how it ended; of a WebSocket
        its frames each way."""
        try:
            now = self.clocks.now_unix_ms()
            self.audit.append(transfer_entry(decision_id, outcome, sent, received, ms, now, frames))
        except AuditUnavailable:
            self.connections.cut_everything(Reason.AUDIT_UNAVAILABLE)

    # --- consequences ---------------------------------------------------------------------------

    def _punish(
        self,
        verdict: Verdict,
        request: EgressRequest,
        decision_id: str,
        now_unix_ms: int,
        speaker: LiveConnection,
    ) -> int:
        """Block first, cut second, write the evidence third: nothing more leaves meanwhile."""
        worker_id = request.requester.worker_id
        if verdict.consequence is Consequence.QUARANTINE:
            self.view.block_here(worker_id)
            self.connections.cut(Ended(worker_ids=frozenset({worker_id})), spare=speaker)
        evidence = self.spool.append(violation_of(verdict, request, decision_id, now_unix_ms))
        self.evidence_waiting.set()
        return evidence.seq
