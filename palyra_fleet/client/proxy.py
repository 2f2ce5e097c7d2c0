"""What an egress proxy may ask of the fleet: its live view of bindings, and to hand in evidence.

The view is a stream of JSON lines. `view()` yields each as a ViewMessage and raises
FleetUnavailable as soon as the stream ends, falls silent or holds something else: a proxy that
hears nothing must stop believing what it heard. Subscribe again for a new snapshot.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from pydantic import ValidationError

from palyra_fleet.client.credentials import ProofCredentials
from palyra_fleet.client.errors import FleetUnavailable
from palyra_fleet.client.transport import (
    DEFAULT_TIMEOUT_MS,
    FleetAddress,
    FleetClient,
    query_target,
)
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import EvidenceChain, ProxyBeat, ViolationAnswer
from palyra_fleet.wire.policy_models import (
    PolicyPoll,
    PolicyQuestion,
    PolicyQuestions,
    PolicyStanding,
    ProxyAnswer,
)
from palyra_fleet.wire.traffic_models import TrafficReport
from palyra_fleet.wire.view_models import ViewMessage

DEFAULT_SILENCE_MS = 10_000


class ProxyClient(FleetClient):
    """The proxy's calls, signed with the proxy's enrolled key."""

    def __init__(
        self,
        where: FleetAddress,
        key: SigningKey,
        *,
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        clock: Callable[[], int] = now_unix_ms,
    ) -> None:
        super().__init__(where, ProofCredentials(key, clock), timeout_ms=timeout_ms)

    async def view(
        self, heard: tuple[int, int] | None = None, silence_ms: int = DEFAULT_SILENCE_MS
    ) -> AsyncGenerator[ViewMessage]:
        """Every change of the bindings; never ends quietly (FleetUnavailable or FleetProblem).

        `heard` is the (epoch, seq) that was heard last: the fleet goes on from there if it can, and
        else begins with a snapshot. Leave it early inside `contextlib.aclosing`, so that the
        connection is closed at once.
        """
        epoch, seq = heard or (None, None)
        target = query_target("/v1/proxy/view", epoch=epoch, after_seq=seq)
        async with aclosing(self.stream(target, silence_ms)) as lines:
            async for line in lines:
                try:
                    message = ViewMessage.model_validate_json(line)
                except ValidationError:
                    raise FleetUnavailable("a line of the view is not a ViewMessage") from None
                yield message

    async def send_violation(self, envelope: DsseEnvelope) -> ViolationAnswer:
        """Hand in signed evidence. The same evidence twice gets the same answer."""
        return await self.call("POST", "/v1/proxy/violations", ViolationAnswer, envelope)

    async def beat(self, spooled_seq: int, policy_digest: str) -> EvidenceChain:
        """Say that this proxy is there; a proxy that is silent costs its workers their egress. New
        leases take receipts under the policy that is named here."""
        request = ProxyBeat(spooled_seq=spooled_seq, policy_digest=policy_digest)
        return await self.call("POST", "/v1/proxy/heartbeat", EvidenceChain, request)

    async def report_traffic(self, report: TrafficReport) -> None:
        """Say what passed since this proxy started. Only numbers for people hang on it."""
        await self.send("POST", "/v1/proxy/traffic", report)

    async def next_question(
        self, standing: PolicyStanding, wait_ms: int = 0
    ) -> PolicyQuestion | None:
        """Say what is in force, and take what is asked about it; None when the wait is over."""
        poll = PolicyPoll(standing=standing, wait_ms=wait_ms)
        target = "/v1/proxy/policy-questions"
        found = await self.call("POST", target, PolicyQuestions, poll, extra_wait_ms=wait_ms)
        return found.items[0] if found.items else None

    async def answer_question(self, answer: ProxyAnswer) -> None:
        """FleetProblem where nobody waits for it any more, or the policy is another one."""
        await self.send("POST", "/v1/proxy/policy-answers", answer)

    async def evidence_chain(self) -> EvidenceChain:
        """How far the fleet holds this proxy's evidence. Less than was acknowledged before: its
        state was restored from a backup, and what came after must be handed in again."""
        return await self.call("GET", "/v1/proxy/chain", EvidenceChain)
