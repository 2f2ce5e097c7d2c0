"""One lease in a session's hands: its clock, the alarm before its end, and its renewals.

A session may hold many, one after the other; each has its own alarm and renewals, and both end when
it is let go. What a refused renewal means is for the session to say (`obey`).
"""

import asyncio
from collections.abc import Awaitable, Callable

from palyra_fleet.client import FleetProblem, FleetUnavailable
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import HeldLease, LeaseAnswer, LeaseState
from palyra_fleet.worker.lease_clock import LeaseClock
from palyra_fleet.worker.stop import Stop
from palyra_fleet.worker.timekeeper import Timekeeper


class LeaseInHand:
    """`fence` is called when the lease is about to end. `at_its_end`: the fleet was asked for more,
    and gave none."""

    def __init__(
        self, answer: LeaseAnswer, clock: LeaseClock, time: Timekeeper, fence: Callable[[], None]
    ) -> None:
        self.answer = answer
        self.clock = clock
        self.at_its_end = False
        self._time = time
        self._fence = fence
        self._alarm = time.call_at(clock.fence_at_s, fence)
        self._renewing: asyncio.Task[None] | None = None

    @property
    def named(self) -> HeldLease:
        return HeldLease(lease_id=self.answer.lease_id, fence=self.answer.fence)

    def shorten_to(self, end_s: float) -> None:
        """It ends with what it rests on."""
        if self.clock.end_s > end_s:
            self._set(self.clock.shortened_to(end_s))

    def keep_renewing(
        self,
        renew: Callable[[], Awaitable[LeaseState]],
        obey: Callable[[FleetProblem], None],
        stopped: asyncio.Future[Stop],
    ) -> None:
        """Call `renew` at half of what is left, again and again, until it is let go or stopped."""
        loop = self._keep_renewing(renew, obey, stopped)
        self._renewing = spawn(loop, f"renew {self.answer.lease_id}")

    async def let_go(self) -> None:
        """No alarm and no renewal comes after this."""
        self._alarm.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    def _set(self, clock: LeaseClock) -> None:
        self._alarm.cancel()
        self.clock = clock
        self._alarm = self._time.call_at(clock.fence_at_s, self._fence)

    async def _keep_renewing(
        self,
        renew: Callable[[], Awaitable[LeaseState]],
        obey: Callable[[FleetProblem], None],
        stopped: asyncio.Future[Stop],
    ) -> None:
        while not stopped.done():
            await self._time.sleep(self.clock.renew_after_s(self._time.now_s()))
            asked_s, wall = self._time.now_s(), self._time.wall_unix_ms()
            try:
                state = await renew()
            except FleetUnavailable:
                continue
            except FleetProblem as problem:
                obey(problem)
                continue
            later = LeaseClock.starting(
                expires_at_unix_ms=state.expires_at_unix_ms, wall_unix_ms=wall, now_s=asked_s
            )
            longer = self.clock.extended(later)
            self.at_its_end = longer is self.clock
            self._set(longer)
