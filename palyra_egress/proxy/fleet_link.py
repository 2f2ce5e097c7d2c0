"""The proxy's side of the fleet: keep the view fresh, hand in evidence, never stop trying.

`follow_view` applies the fleet's stream to the binding view and cuts what must end; when the stream
breaks, the view goes stale by itself and everything is refused until a new snapshot arrives; when
the fleet says that it does not know this proxy, that happens at once.
`deliver_evidence` sends spooled envelopes oldest first until each is acknowledged; one the fleet
will never take (a 4xx answer) stays in the spool, its worker stays blocked, and it is reported.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from palyra_egress.clock import now_unix_ms
from palyra_egress.proxy.core import EnforcementCore
from palyra_egress.reasons import Reason
from palyra_fleet.client.errors import FleetError, FleetProblem
from palyra_fleet.client.proxy import ProxyClient
from palyra_fleet.wire.traffic_models import TrafficReport

RETRY_AFTER_S = 0.25
RETRY_AT_MOST_S = 2.0
REPORT_EVERY_S = 3.0
SEQUENCE_GAP = "violation.seq_gap"
_NOT_OURS = frozenset({401, 403})
TAKEN_OVER = frozenset({"quarantined", "already_quarantined"})

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class FleetLink:
    """What is wrong with the link, for readiness and logs; None while it works."""

    core: EnforcementCore
    client: ProxyClient
    join: Callable[[], Awaitable[None]] | None = None
    view_problem: str | None = "the fleet has not been heard yet"
    evidence_problem: str | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    counting_since_unix_ms: int = field(default_factory=now_unix_ms)
    _chain_compared: bool = False
    _joined: bool = False
    _believes: bool = False
    _said_policy: str | None = None

    async def follow_view(self) -> None:
        """Follow the stream for ever."""
        wait_s = RETRY_AFTER_S
        while True:
            try:
                await self._take_place()
                async with aclosing(self.client.view(self.core.view.heard)) as messages:
                    async for message in messages:
                        ended = self.core.view.apply(message, self.core.clocks.now_monotonic_ms())
                        self.core.connections.cut(ended)
                        if message.kind == "snapshot":  # perhaps another state than before
                            self._chain_compared = False
                            self._said_policy = None
                            self.core.evidence_waiting.set()
                        self.view_problem = None
                        self._believes = True
                        self.heard.set()
                        wait_s = RETRY_AFTER_S
            except FleetError as error:
                if self.view_problem is None:
                    _log.warning("lost the fleet's view: %s", error)
                self.view_problem = str(error)
                if isinstance(error, FleetProblem) and error.status in _NOT_OURS:
                    self._stand_down()
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 spread, no secret
            wait_s = min(wait_s * 2, RETRY_AT_MOST_S)

    async def _take_place(self) -> None:
        """On another machine: be enrolled with the key that was paired. Raises FleetError."""
        if self.join is not None and not self._joined:
            await self.join()
            self._joined = True

    def _stand_down(self) -> None:
        """The fleet knows this proxy no more: what was believed is believed no longer, at once.

        Once: where nothing was believed since, no connection had a lease, and each of them is
        owed its refusal."""
        self._joined = False
        self.core.view.forget()
        if self._believes:
            self._believes = False
            self.core.connections.cut_everything(Reason.VIEW_STALE)

    async def report(self) -> None:
        """Say for ever that this proxy is there, and how far its evidence goes: a proxy that the
        fleet does not hear costs its workers their egress everywhere."""
        while True:
            if self.view_problem is None:
                with contextlib.suppress(FleetError):  # the view tells of it, and goes stale
                    await self._beat()
            await asyncio.sleep(REPORT_EVERY_S)

    async def say_policy(self) -> None:
        """Beat at once where the fleet has not heard of the policy in force. Raises FleetError."""
        if self._said_policy != self.core.service.policy_digest:
            await self._beat()

    async def _beat(self) -> None:
        digest = self.core.service.policy_digest
        await self.client.beat(self.core.spool.head_seq, digest)
        self._said_policy = digest

    async def tell_traffic(self) -> None:
        """Say for ever what passed. Apart from `report`, so that numbers which are late, or which
        the fleet does not take, cost nobody anything."""
        while True:
            if self.view_problem is None:
                with contextlib.suppress(FleetError):
                    await self.client.report_traffic(self.traffic())
            await asyncio.sleep(REPORT_EVERY_S)

    def traffic(self) -> TrafficReport:
        """What this proxy counted since it started."""
        return self.core.signals.traffic(
            self.counting_since_unix_ms, self.core.service.policy_digest
        )

    async def deliver_evidence(self) -> None:
        """Deliver for ever, woken by new evidence."""
        wait_s = RETRY_AFTER_S
        while True:
            self.core.evidence_waiting.clear()
            try:
                await self.deliver_pending()
                await self.compare_chain()
                self.evidence_problem = None
                wait_s = RETRY_AFTER_S
            except FleetError as error:
                if self.evidence_problem is None:
                    _log.error("evidence is not taken by the fleet: %s", error)
                self.evidence_problem = str(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_AT_MOST_S)
                continue
            await self.core.evidence_waiting.wait()

    async def deliver_pending(self) -> None:
        """Send what is pending once. Raises FleetError at the first that is not taken.

        Only where the fleet says that the worker is quarantined does it take over the block: what
        it merely recorded (a lease it does not know) stays blocked here.
        """
        for evidence in self.core.spool.pending:
            try:
                with self.core.signals.traces.delivering(evidence.seq) as delivery:
                    answer = await self.client.send_violation(evidence.envelope)
                    delivery.outcome = answer.outcome
            except FleetProblem as problem:
                if problem.reason == SEQUENCE_GAP:
                    await self._catch_up()
                raise
            if answer.outcome in TAKEN_OVER:
                self.core.view.evidence_delivered(evidence.worker_id)
            self.core.spool.acknowledge(evidence.seq)

    async def compare_chain(self) -> None:
        """Once per stream of the fleet: does it hold what it acknowledged? A restored fleet forgot
        its quarantines too, and must not wait for the next violation to hear of them."""
        if self._chain_compared:
            return
        await self._catch_up()
        await self.deliver_pending()
        self._chain_compared = True

    async def _catch_up(self) -> None:
        """The fleet misses evidence it had: it was restored. Hand in again what it lacks, with the
        workers of it blocked until it has it."""
        chain = await self.client.evidence_chain()
        if not self.core.spool.rewind(chain.seq):
            return
        _log.warning("the fleet holds evidence up to %d only; handing in the rest again", chain.seq)
        for evidence in self.core.spool.pending:
            if evidence.quarantines:
                self.core.view.block_here(evidence.worker_id)
