"""What enrolled proxies may ask of the fleet: the live view, their place in their chain, evidence.

Mixed into `FleetService`. Evidence is acknowledged only when it is durable with its effect. What is
forged, out of order or rewritten is refused; what is the proxy's and next in its chain is taken,
even if the fleet does not know the lease it is about. Times: Unix ms.
"""

from collections.abc import AsyncIterator

from palyra_fleet.ledger.decision import EnrolledKey
from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal
from palyra_fleet.service.core import FleetCore
from palyra_fleet.traces.calls import note, step
from palyra_fleet.traces.spans import Attribute, Value
from palyra_fleet.violations.effects import violation_decision
from palyra_fleet.violations.intake import (
    EvidenceOutcome,
    Standing,
    chain_refusal,
    is_bound,
    open_violation,
    weigh,
)
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.traffic_models import TrafficReport
from palyra_fleet.wire.view_models import ViewMessage


class ProxyCommands(FleetCore):
    """The proxies' side of the fleet."""

    def view(
        self, proxy_id: str, heard: tuple[int, int] | None = None
    ) -> AsyncIterator[ViewMessage]:
        """Snapshot (or what came after `heard`: epoch and seq), changes, ticks. A reader that is
        too slow is dropped and must reconnect; one that is taken back hears nothing more."""
        self._enrolled_proxy(proxy_id)
        return self._hub.stream(proxy_id, heard)

    async def evidence_chain(self, proxy_id: str) -> wire.EvidenceChain:
        """How far the fleet holds this proxy's evidence: it goes on with the next number."""
        proxy = self._enrolled_proxy(proxy_id)
        return wire.EvidenceChain(seq=proxy.seq, last_sha256=proxy.last_sha256)

    async def proxy_beat(self, proxy_id: str, beat: wire.ProxyBeat) -> wire.EvidenceChain:
        """The proxy is there. How far its chain is held tells it what to hand in again."""

        async def act(now: int) -> wire.EvidenceChain:
            proxy = self._enrolled_proxy(proxy_id)
            self._watch.beat(proxy, beat.spooled_seq, now)
            await self._settle(self._manager.hear_policy(proxy_id, beat.policy_digest, now))
            await self._settle_suspensions(now)
            return wire.EvidenceChain(seq=proxy.seq, last_sha256=proxy.last_sha256)

        return await self._locked(act)

    def traffic_is_due(self, proxy_id: str) -> bool:
        """Whether the proxy may report its traffic again."""
        return self._traffic.is_due(proxy_id, self._now())

    def report_traffic(self, proxy_id: str, report: TrafficReport) -> None:
        """Numbers for people, kept in memory. Nothing is decided by them."""
        self._enrolled_proxy(proxy_id)
        self._traffic.reported(proxy_id, report, self._now())

    async def accept_violation(self, proxy_id: str, envelope: DsseEnvelope) -> wire.ViolationAnswer:
        """Evidence of an enrolled proxy; the same twice answers the same."""
        with step("evidence"):
            return await self._locked(lambda now: self._accept_violation(proxy_id, envelope, now))

    async def _accept_violation(
        self, proxy_id: str, envelope: DsseEnvelope, now: int
    ) -> wire.ViolationAnswer:
        proxy = self._enrolled_proxy(proxy_id)
        evidence = open_violation(proxy, envelope)
        if isinstance(evidence, Refusal):
            raise FleetRefusal.of(evidence)
        payload = evidence.payload
        known = await self._store.evidence(evidence.sha256)
        if known is not None:
            return wire.ViolationAnswer(
                accepted_seq=known.seq, outcome=known.outcome, duplicate=True
            )
        refusal = chain_refusal(proxy, evidence)
        if refusal is not None:
            raise FleetRefusal.of(refusal)
        standing = await self._standing(payload)
        after = payload.at_unix_ms - payload.strike_window_ms
        strikes = await self._store.strikes(payload.worker_id, after)
        outcome = weigh(payload, standing, strikes)
        bound = standing != "not_bound"
        _note(payload, outcome)
        await self._settle(violation_decision(self._manager, proxy, evidence, outcome, bound, now))
        if not bound:
            self._unbound_evidence.note(now)
        return wire.ViolationAnswer(accepted_seq=payload.seq, outcome=outcome, duplicate=False)

    def _enrolled_proxy(self, proxy_id: str) -> EnrolledKey:
        proxy = self._manager.state.enrolled.get(("proxy", proxy_id))
        if proxy is None or proxy.revoked:
            text = f"proxy '{proxy_id}' is not enrolled"
            raise FleetRefusal(FleetReason.EVIDENCE_PROXY_UNKNOWN, text)
        return proxy

    async def _standing(self, payload: wire.ViolationPayload) -> Standing:
        state = self._manager.state
        lease = state.leases.get(payload.lease_id) or await self._store.lease(payload.lease_id)
        if not is_bound(payload, lease):
            return "not_bound"
        worker = state.workers.get(payload.worker_id)
        if worker is None:
            return "forgotten"
        return "confined" if worker.confined else "free"


def _note(payload: wire.ViolationPayload, outcome: EvidenceOutcome) -> None:
    """What evidence says and leads to, for the trace; its target stays in the evidence."""
    facts: dict[Attribute, Value | None] = {
        Attribute.DECISION_ID: payload.decision_id,
        Attribute.WORKER_ID: payload.worker_id,
        Attribute.LEASE_ID: payload.lease_id,
        Attribute.REASON: payload.reason,
        Attribute.RULE_ID: payload.rule_id,
        Attribute.PROXY: payload.proxy_id,
        Attribute.EVIDENCE_SEQ: payload.seq,
        Attribute.OUTCOME: outcome,
    }
    note(facts, "quarantine" if outcome == "quarantined" else None)
