"""A session's standing with the fleet: its epoch and how long it is attested, kept as one.

Each proof gives a new epoch, and the fleet refuses calls with an earlier one. `speak` makes every
call with the epoch of now; one that an adoption overtook on the way is made again with the new one,
so no heartbeat is lost to a proof of our own. When the answer to a proof is lost, the epoch is in
doubt: a refusal as stale then says nothing about another session, and the same proof is tried again
(the fleet goes by the key). Whether a newer session exists is for the fleet to say, of the key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from palyra_fleet.client import FleetProblem, FleetUnavailable, WorkerClient
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.models import RegisterAnswer, RegisterRequest
from palyra_fleet.worker.attester import Attester
from palyra_fleet.worker.lease_clock import LeaseClock

_FLEETS_OWN_FAULT: Final = 500


class Standing:
    """Opened with the first registration."""

    def __init__(
        self, client: WorkerClient, attester: Attester, answer: RegisterAnswer, life: LeaseClock
    ) -> None:
        self._client = client
        self._attester = attester
        self._answer = answer
        self._life = life
        self._proving = asyncio.Lock()
        self._in_doubt = False

    @classmethod
    async def open(cls, client: WorkerClient, attester: Attester) -> "Standing":
        """Register. Raises FleetUnavailable, FleetProblem or ReceiptRefused."""
        begun_s, wall_unix_ms = attester.time.now_s(), attester.time.wall_unix_ms()
        answer = await client.register(await attester.first())
        return cls(client, attester, answer, _life(answer, wall_unix_ms, begun_s))

    @property
    def answer(self) -> RegisterAnswer:
        """What the fleet said to the last proof."""
        return self._answer

    @property
    def life(self) -> LeaseClock:
        """How long the attestation holds."""
        return self._life

    async def speak[Answer](self, call: Callable[[int], Awaitable[Answer]]) -> Answer:
        """Make `call` with the current epoch. Raises what it raises; FleetUnavailable in doubt."""
        while True:
            epoch = self._answer.session_epoch
            try:
                return await call(epoch)
            except FleetProblem as problem:
                if problem.reason != FleetReason.SESSION_STALE:
                    raise
                async with self._proving:  # an answer may be on its way that brings the epoch
                    overtaken = self._answer.session_epoch != epoch
                if overtaken:
                    continue
                if self._in_doubt:
                    raise FleetUnavailable(
                        "the fleet's answer to the last proof was lost"
                    ) from None
                raise

    async def prove_again(self) -> None:
        """Attest and adopt the new epoch and end in one step. Besides raises ArtifactChanged."""
        time = self._attester.time
        begun_s, wall_unix_ms = time.now_s(), time.wall_unix_ms()
        request = await self._attester.again()
        async with self._proving:
            answer = await self._register(request)
            self._answer, self._life = answer, _life(answer, wall_unix_ms, begun_s)

    async def _register(self, request: RegisterRequest) -> RegisterAnswer:
        doubted, self._in_doubt = self._in_doubt, True
        try:
            answer = await self._client.register(request)
        except FleetProblem as problem:
            self._in_doubt = doubted or problem.status >= _FLEETS_OWN_FAULT
            raise
        self._in_doubt = False
        return answer


def _life(answer: RegisterAnswer, wall_unix_ms: int, begun_s: float) -> LeaseClock:
    return LeaseClock.starting(
        expires_at_unix_ms=answer.attested_until_unix_ms, wall_unix_ms=wall_unix_ms, now_s=begun_s
    )
