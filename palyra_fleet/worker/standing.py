"""A session's standing with the fleet: its key, its epoch and how long it is attested, kept as one.

Each proof gives a new epoch, and the fleet refuses calls with an earlier one; where it demands a
new key, a proof also changes the key, and calls signed with the earlier one are refused. `speak`
makes every call with key and epoch of now; one that an adoption overtook on the way is made again,
so no heartbeat is lost to a proof of our own. When the answer to a proof is lost, key and epoch are
in doubt: a refusal as stale or unknown then says nothing about another session, and the proof is
tried again with the same key (the fleet goes by the key). Whether a newer session exists is for the
fleet to say, of the key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from palyra_fleet.client import FleetProblem, FleetUnavailable, WorkerClient
from palyra_fleet.refusals import FleetReason
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import RegisterAnswer, RegisterRequest
from palyra_fleet.worker.attester import Attester
from palyra_fleet.worker.lease_clock import LeaseClock

_FLEETS_OWN_FAULT: Final = 500
_UNKNOWN_KEY: Final = 401


class Standing:
    """Opened with the first registration; `close` it."""

    def __init__(self, attester: Attester, answer: RegisterAnswer, life: LeaseClock) -> None:
        self._attester = attester
        self._next: Attester | None = None
        self._past: list[WorkerClient] = []
        self._answer = answer
        self._life = life
        self._one_proof = asyncio.Lock()
        self._proving = asyncio.Lock()
        self._in_doubt = False

    @classmethod
    async def open(cls, attester: Attester) -> "Standing":
        """Register. Raises FleetUnavailable, FleetProblem or ReceiptRefused."""
        begun_s, wall_unix_ms = attester.time.now_s(), attester.time.wall_unix_ms()
        answer = await attester.client.register(await attester.first())
        return cls(attester, answer, _life(answer, wall_unix_ms, begun_s))

    @property
    def client(self) -> WorkerClient:
        """Signs with the key of now."""
        return self._attester.client

    @property
    def answer(self) -> RegisterAnswer:
        """What the fleet said to the last proof."""
        return self._answer

    @property
    def life(self) -> LeaseClock:
        """How long the attestation holds."""
        return self._life

    async def close(self) -> None:
        """Close the connections that were made with any of its keys."""
        following = [] if self._next is None else [self._next.client]
        for client in (*self._past, *following, self.client):
            await client.close()

    def ends_at(self, end_unix_ms: int) -> None:
        """The fleet holds the attestation for no longer than that."""
        time = self._attester.time
        left_s = max(0, end_unix_ms - time.wall_unix_ms()) / 1000
        self._life = self._life.shortened_to(time.now_s() + left_s)

    async def speak[Answer](self, call: Callable[[int], Awaitable[Answer]]) -> Answer:
        """Make `call` with the current epoch. Raises what it raises; FleetUnavailable in doubt."""
        while True:
            epoch = self._answer.session_epoch
            try:
                return await call(epoch)
            except FleetProblem as problem:
                if problem.reason != FleetReason.SESSION_STALE and problem.status != _UNKNOWN_KEY:
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

    async def prove_again(self, *, new_key: bool = False) -> None:
        """Attest and adopt the new epoch and end in one step, and with `new_key`, or where the
        fleet says so, a new key with them. Besides raises ArtifactChanged."""
        async with self._one_proof:
            try:
                await self._prove(new_key)
            except FleetProblem as problem:
                if problem.reason != FleetReason.NEW_KEY_DEMANDED:
                    raise
                # the fleet says so of the key it has: of the next one, if an answer was lost
                self._take_next()
                await self._prove(new_key=True)

    async def _prove(self, new_key: bool) -> None:
        if new_key and self._next is None:
            key = SigningKey.generate()
            self._next = self._attester.succeeding(self.client.with_key(key), key)
        attester = self._next or self._attester
        begun_s, wall_unix_ms = attester.time.now_s(), attester.time.wall_unix_ms()
        request = await attester.again()
        async with self._proving:
            answer = await self._register(attester.client, request)
            self._answer, self._life = answer, _life(answer, wall_unix_ms, begun_s)
            if attester is self._next:
                self._take_next()

    def _take_next(self) -> None:
        """Speak with the next key from now on, if there is one."""
        if self._next is not None:
            # calls that are on their way end by themselves
            self._past.append(self.client)
            self._attester, self._next = self._next, None

    async def _register(self, client: WorkerClient, request: RegisterRequest) -> RegisterAnswer:
        doubted, self._in_doubt = self._in_doubt, True
        try:
            answer = await client.register(request)
        except FleetProblem as problem:
            self._in_doubt = doubted or problem.status >= _FLEETS_OWN_FAULT
            raise
        self._in_doubt = False
        return answer


def _life(answer: RegisterAnswer, wall_unix_ms: int, begun_s: float) -> LeaseClock:
    return LeaseClock.starting(
        expires_at_unix_ms=answer.attested_until_unix_ms, wall_unix_ms=wall_unix_ms, now_s=begun_s
    )
