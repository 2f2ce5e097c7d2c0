"""One egress proxy, assembled: everything it opens, starts, and closes again in order.

Start: environment, keys, CA, policy, audit log, spool (whose pending workers are blocked first),
listener, background tasks, and only then READY. Stop: deny, close the listener, drain for a moment,
reset what is left, deliver what evidence can be delivered, close the files. A background task that
dies takes the proxy out of service: it refuses everything rather than work half-blind.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from mitmproxy.master import Master

from palyra_egress.approvals.gate import ApprovalGate
from palyra_egress.audit.entries import policy_entry
from palyra_egress.audit.log import AuditLog, AuditUnavailable
from palyra_egress.clock import now_monotonic_ms, now_unix_ms, now_utc
from palyra_egress.credentials.binding import SecretLookup
from palyra_egress.credentials.policy_gate import SecretGate
from palyra_egress.credentials.sources import SecretSources
from palyra_egress.destination.resolver import (
    Resolver,
    StaticResolver,
    SystemResolver,
    read_hosts_file,
)
from palyra_egress.errors import OperatorMustAct
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.live import EveryGate, PolicyFile, PolicyGate
from palyra_egress.policy.policy_diff import policy_change
from palyra_egress.proxy.bindings import BindingView
from palyra_egress.proxy.bounds.openings import Openings
from palyra_egress.proxy.channels.channels import Channels
from palyra_egress.proxy.channels.ended import ChannelWatch
from palyra_egress.proxy.clocks import Clocks
from palyra_egress.proxy.core import EnforcementCore, Phase
from palyra_egress.proxy.evidence import EvidenceSpool, SpoolUnavailable
from palyra_egress.proxy.fleet_link import FleetLink
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.guard.guard_parts import GuardParts
from palyra_egress.proxy.guard.receipt import ReceiptIssuer
from palyra_egress.proxy.handler import EnforcingHandler, GuardFactory
from palyra_egress.proxy.listeners import Listeners
from palyra_egress.proxy.master import (
    Door,
    check_environment,
    make_master,
    room_for_connections,
)
from palyra_egress.proxy.policy_talk import PolicyTalk
from palyra_egress.proxy.review import Review
from palyra_egress.proxy.settings import ProxySettings
from palyra_egress.proxy.signals.told import ProxyTold
from palyra_egress.proxy.tls.interception import InterceptionAuthority
from palyra_egress.proxy.tls.server_tls import ServerTlsStore
from palyra_egress.proxy.tls.server_tls_gate import ServerTlsGate
from palyra_egress.proxy.tls.upstream_bundle import read_extra_roots, write_bundle
from palyra_egress.proxy.writers_gate import WritersGate
from palyra_egress.questions.standing import Loaded
from palyra_egress.reasons import Reason
from palyra_egress.service import EgressProxyPolicyService
from palyra_fleet.client.errors import FleetError
from palyra_fleet.client.proxy import ProxyClient
from palyra_fleet.tasks import spawn
from palyra_fleet.traces.running import EGRESS_SERVICE, close_spans, open_spans
from palyra_fleet.wire.keys import SigningKey

SYNC_EVERY_S = 0.02
POLL_POLICY_EVERY_S = 0.25
EXPIRE_EVERY_S = 0.1
COUNT_UNANSWERED_EVERY_S = 1.0
WIDENING_SHOWN = 5

_log = logging.getLogger(__name__)


class PolicyRefused(OperatorMustAct):
    """The policy file is not good; its problems are the message."""


@dataclass(slots=True)
class Enforcement:
    """Everything of a proxy but its listener: also what is installed under `mitmdump -s`."""

    settings: ProxySettings
    core: EnforcementCore
    parts: GuardParts
    authority: InterceptionAuthority
    server_tls: ServerTlsStore
    link: FleetLink
    policy_file: PolicyFile
    sources: SecretSources | None = None
    channels: Channels | None = None
    told: ProxyTold = field(init=False)
    talk: PolicyTalk = field(init=False)
    loaded_policy_at_unix_ms: int = field(default_factory=now_unix_ms)
    replaced_policy: CompiledPolicy | None = None
    """What was in force before the policy that is, if it changed since the start."""
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.told = ProxyTold(self.core, self.authority, self.problems)
        self.talk = PolicyTalk(self.link, self.loaded)

    @classmethod
    def open(cls, settings: ProxySettings, secrets: SecretLookup | None = None) -> Self:
        """Open keys, CA, policy, secrets, audit log and spool. Phase STARTING: everything is
        refused. Secrets are those of the settings, unless a lookup is given."""
        check_environment()
        spans = open_spans(settings.traces, EGRESS_SERVICE)
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = settings.key or SigningKey.load_or_create(settings.key_file)
        authority = InterceptionAuthority.load_or_create(settings.ca_dir, now_utc())
        extra_roots = read_extra_roots(settings.extra_roots_file)
        authority.write_bundle(extra_roots)
        lookup = _sources(settings) if secrets is None else secrets
        sources = lookup if isinstance(lookup, SecretSources) else None
        gates = _gates(settings, with_secrets=sources is not None)
        policy_file = PolicyFile(settings.policy_file, EveryGate(*gates))
        policy = policy_file.poll()
        if policy is None:
            raise PolicyRefused(policy_file.problem or "the policy could not be read")
        if sources is not None:
            sources.want(policy)
        resolver = _resolver(settings)
        bundle = write_bundle(settings.ca_dir, extra_roots)
        server_tls = ServerTlsStore(settings.server_tls, bundle, now_utc)
        core = EnforcementCore(
            proxy_id=settings.proxy_id,
            service=EgressProxyPolicyService(policy, settings.forbidden),
            view=BindingView(max_age_ms=settings.max_view_age_ms),
            audit=AuditLog.open(settings.audit_file, key, now_unix_ms()),
            spool=EvidenceSpool.open(settings.spool_dir, settings.proxy_id, key),
            resolver=resolver,
            clocks=Clocks(now_unix_ms, now_monotonic_ms),
            server_tls=server_tls,
            secrets=lookup,
        )
        table = core.connections
        table.max_connections = min(settings.caps.connections, room_for_connections())
        table.max_per_worker = settings.caps.connections_per_worker
        core.openings = Openings(settings.caps, authority.has_leaf)
        for evidence in core.spool.pending:
            if evidence.quarantines:
                core.view.block_here(evidence.worker_id)
        parts = GuardParts(
            core=core,
            authority=authority,
            receipts=ReceiptIssuer(key, settings.proxy_id),
            deadlines=settings.deadlines,
            trace_headers=settings.trace_headers,
        )
        core.signals.trace_to(settings.proxy_id, spans)
        link = FleetLink(core, ProxyClient(settings.fleet, key), settings.join)
        return cls(settings, core, parts, authority, server_tls, link, policy_file, sources)

    def loaded(self) -> Loaded | None:
        """The policy in force, for who asks about it."""
        policy = self.core.service.policy
        if policy is None:
            return None
        return Loaded(
            policy=policy,
            loaded_at_unix_ms=self.loaded_policy_at_unix_ms,
            before=self.replaced_policy,
            problem=self.policy_file.problem,
            problems=self.policy_file.found,
            signed=self.settings.approvers_file is not None,
        )

    def begin(
        self, listening: frozenset[tuple[str, int]], channels: Channels | None = None
    ) -> None:
        """Start the background tasks and become READY. `listening` joins the forbidden targets;
        `channels` follow the view from now on."""
        self.core.service.replace_forbidden(self.settings.forbidden | listening)
        self._spawn(self.link.follow_view(), "follow the fleet's view")
        self._spawn(self.link.deliver_evidence(), "deliver evidence")
        self._spawn(self.link.report(), "report to the fleet")
        if self.settings.keep is not None:
            self._spawn(self.settings.keep(), "renew the certificate")
        self._spawn(self._keep_audit(), "keep the audit log")
        self._spawn(self._poll_policy(), "watch the policy file")
        if self.sources is not None:
            self._spawn(self.sources.keep(), "keep the secrets")
        self._spawn(self._expire(), "expire bindings")
        # tasks whose end refuses nobody anything: numbers and answers for people
        self._tasks.append(spawn(self.link.tell_traffic(), "tell the fleet of the traffic"))
        self._tasks.append(spawn(self.talk.answer_for_ever(), "answer about the policy"))
        self.channels = channels
        if channels is not None and channels.lease_listeners is not None:
            self._spawn(channels.follow(self.core.view), "follow the view with listeners")
        self._spawn(self._count_unanswered(), "count unanswered strangers")
        self.core.phase = Phase.READY

    def problems(self) -> dict[str, str]:
        """Readiness, check by check: `ok` or what is wrong."""
        refusal = self.core.view.refusal(now_monotonic_ms())
        return {
            "phase": "ok" if self.core.phase is Phase.READY else self.core.phase.value,
            "policy": self.policy_file.problem or "ok",
            "view": refusal.value if refusal is not None else "ok",
            "evidence": self.link.evidence_problem or "ok",
            "audit": self.core.audit.problem or "ok",
            "ca": self.authority.problem(now_utc()) or "ok",
            "server_tls": self.server_tls.problem or "ok",
            "secrets": "ok" if self.sources is None else self.sources.problem or "ok",
            "channels": "ok" if self.channels is None else self.channels.problem or "ok",
        }

    def refuse_everything(self) -> None:
        """From now on every request is refused; what is open goes on until it is cut."""
        self.core.phase = Phase.STOPPING

    async def end(self) -> None:
        """Refuse everything, drain, cut, deliver, close. Safe to call in any phase."""
        self.refuse_everything()
        await self.core.connections.wait_until_empty(self.settings.drain_s)
        self.core.connections.cut_everything(Reason.STOPPING)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self.link.deliver_pending()
        except (FleetError, SpoolUnavailable):
            _log.warning("%d pieces of evidence wait in the spool", len(self.core.spool.pending))
        await self.link.client.close()
        if self.sources is not None:
            await self.sources.close()
        self.core.resolver.close()
        self.core.spool.close()
        self._close_audit()
        await close_spans(self.core.signals.traces.spans)

    def _close_audit(self) -> None:
        """The last entry is a checkpoint, so that nothing can be cut off unseen."""
        with contextlib.suppress(AuditUnavailable):  # told already, and everything was refused
            self.core.audit.checkpoint(now_unix_ms())
        self.core.audit.close()

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = spawn(work, name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if self.core.phase is Phase.READY:
            _log.critical("background task %r ended; everything is refused", task.get_name())
            self.core.phase = Phase.STOPPING
            self.core.connections.cut_everything(Reason.INTERNAL)

    async def _keep_audit(self) -> None:
        """Make entries durable in groups, sign checkpoints, rotate; cut everything when the log
        cannot be written any more."""
        told = False
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            try:
                await self._tend_audit()
            except AuditUnavailable as error:
                if not told:
                    _log.critical("audit log: %s; everything is refused", error)
                    self.core.connections.cut_everything(Reason.AUDIT_UNAVAILABLE)
                told = True
            else:
                told = False

    async def _tend_audit(self) -> None:
        audit = self.core.audit
        is_full = audit.size_bytes >= self.settings.audit_segment_bytes and not audit.broken
        if is_full or audit.checkpoint_due(now_unix_ms()):
            audit.checkpoint(now_unix_ms())
        if audit.unsynced:
            await asyncio.to_thread(audit.sync)
        self.told.was_durable(is_all=not audit.unsynced)
        if is_full:
            _log.info("the audit log goes on in a new file; the full one is %s", audit.rotate())

    async def _poll_policy(self) -> None:
        problem: str | None = None
        while True:
            await asyncio.sleep(POLL_POLICY_EVERY_S)
            policy = await asyncio.to_thread(self.policy_file.poll)
            if policy is not None:
                await self._put_in_force(policy)
            await asyncio.to_thread(self.core.leaks.watch, self.core.service.policy)
            if (roots := await asyncio.to_thread(self.authority.read_again)) is not None:
                self.authority.use(roots)
                _log.warning("the roots that workers trust have changed; %s", self._roots_now())
            await asyncio.to_thread(self.server_tls.read_again)
            if self.policy_file.problem not in (None, problem):
                _log.error("the policy in force stays: %s", self.policy_file.problem)
                self.core.signals.counts.policy_reload_failures += 1
            problem = self.policy_file.problem

    def _roots_now(self) -> str:
        return f"SHA-256 {self.authority.root_fingerprint.hex()} signs"

    async def _put_in_force(self, policy: CompiledPolicy) -> None:
        """Swap the policy in one step; what it opens is told loudly and stands in the audit log."""
        if self.sources is not None:
            await self.sources.follow(policy)
        before = self.core.service.policy
        change = await asyncio.to_thread(policy_change, before, policy)
        try:
            self.core.audit.append(policy_entry(change, now_unix_ms()))
        except AuditUnavailable as error:
            _log.critical("audit log: %s; everything is refused", error)
        await asyncio.to_thread(self.core.leaks.watch, policy)
        self.core.service.replace_policy(policy)
        self.replaced_policy, self.loaded_policy_at_unix_ms = before, now_unix_ms()
        if change.widening:
            shown = "; ".join(change.widening[:WIDENING_SHOWN])
            count = len(change.widening)
            _log.warning("policy %s is in force and WIDENS (%d): %s", policy.digest, count, shown)
        else:
            _log.info("policy %s is in force and widens nothing", policy.digest)

    async def _count_unanswered(self) -> None:
        while True:
            await asyncio.sleep(COUNT_UNANSWERED_EVERY_S)
            self.core.audit_unanswered()

    async def _expire(self) -> None:
        """End what may not go on: leases whose time is over, channels that do not hold any more,
        what a new policy or the end of a rule does not allow any more, and everything once the view
        is stale, since an order to stop could not reach us any more."""
        was_fresh = False
        watch = ChannelWatch(self.core.connections)
        review = Review(self.core.service.policy, self.core.clocks.now_unix_ms())
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            if review.is_due(self.core.service.policy, self.core.clocks.now_unix_ms()):
                self.core.connections.review()
            self.core.connections.cut(self.core.view.expired(now_unix_ms()))
            watch.cut_ended(self.core.clocks.now_unix_ms())
            refusal = self.core.view.refusal(now_monotonic_ms())
            if refusal is not None and was_fresh:
                _log.error("%s: every connection is cut", refusal.value)
                self.core.connections.cut_everything(refusal)
            was_fresh = refusal is None


@dataclass(slots=True)
class EgressProxy:
    """A running proxy: the enforcement, and all that it listens on."""

    enforcement: Enforcement
    listeners: Listeners
    master: Master

    @classmethod
    async def start(
        cls,
        settings: ProxySettings,
        make_guard: GuardFactory | None = None,
        secrets: SecretLookup | None = None,
    ) -> Self:
        """Open, listen, and become ready. `make_guard` exists so that faults can be injected."""
        enforcement = Enforcement.open(settings, secrets)
        master = make_master()
        factory = make_guard or guard_factory(enforcement.parts)
        listeners: Listeners | None = None
        try:
            listeners = Listeners(
                settings,
                master,
                factory,
                enforcement.authority,
                enforcement.told,
                partial(enforcement.core.refuse_early, requester=None),
            )
            await listeners.open()
        except (OSError, OperatorMustAct):
            if listeners is not None:
                await listeners.close()
            await enforcement.end()
            raise
        enforcement.begin(listeners.all_addresses, listeners.channels)
        return cls(enforcement, listeners, master)

    @property
    def address(self) -> tuple[str, int]:
        """Where workers speak HTTP."""
        return self.listeners.addresses[Door.HTTP][0]

    @property
    def socks_address(self) -> tuple[str, int] | None:
        found = self.listeners.addresses.get(Door.SOCKS)
        return None if found is None else found[0]

    @property
    def channels(self) -> Channels:
        return self.listeners.channels

    async def stop(self) -> None:
        """Stop in order; see the module."""
        self.enforcement.refuse_everything()
        await self.listeners.close_doors()
        await self.enforcement.end()
        await self.listeners.close()
        await self.master.done()


def guard_factory(parts: GuardParts) -> GuardFactory:
    """Makes the guard of each new connection."""

    def make(handler: EnforcingHandler) -> ConnectionGuard:
        return ConnectionGuard(parts, handler)

    return make


def _gates(settings: ProxySettings, with_secrets: bool) -> list[PolicyGate]:
    """What a good policy must pass; the one that remembers what it let pass stands last."""
    gates: list[PolicyGate] = [WritersGate(), ServerTlsGate(settings.server_tls)]
    if with_secrets:
        gates.append(SecretGate(settings.state_dir, settings.secret_sources))
    if settings.approvers_file is not None:
        approvers = settings.approvers_file
        gates.append(ApprovalGate(settings.policy_file, approvers, settings.state_dir))
    return gates


def _sources(settings: ProxySettings) -> SecretSources:
    return SecretSources(settings.state_dir, settings.secret_sources, now_monotonic_ms, now_unix_ms)


def _resolver(settings: ProxySettings) -> Resolver:
    system = SystemResolver(settings.caps.lookups)
    if settings.hosts_file is None:
        return system
    return StaticResolver(read_hosts_file(settings.hosts_file), system)
