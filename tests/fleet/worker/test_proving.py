"""The loop that keeps a session attested ends when the session does."""

import asyncio
from collections.abc import Callable

from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import EvidenceDemanded
from palyra_fleet.worker.launcher import measure
from palyra_fleet.worker.session import WorkerSession
from tests.fakes.manual_time import ManualTime
from tests.fakes.until import until
from tests.fakes.worker_bench import bench as make_bench


class Interrupted(ManualTime):
    """Calls `at_waking` in the moment in which somebody's sleep is cut short."""

    at_waking: Callable[[], None] | None = None

    async def sleep(self, seconds: float) -> None:
        try:
            await super().sleep(seconds)
        except asyncio.CancelledError:
            act, self.at_waking = self.at_waking, None
            if act is not None:
                act()
            raise


async def test_a_session_that_is_closed_while_it_hears_of_a_demand_ends() -> None:
    time = Interrupted()
    async with make_bench(time) as bench:
        session = await WorkerSession.open(bench.settings.session, measure("/bin/sh"))
        closing: list[asyncio.Task[None]] = []
        time.at_waking = lambda: closing.append(spawn(session.close(), "close"))
        await until("beats and proofs wait", lambda: len(time._sleepers) == 2)
        demanded = EvidenceDemanded(new_key=False, due_at_unix_ms=time.wall_unix_ms() + 60_000)
        session._proving.hear(demanded)
        await until("the session is being closed", lambda: bool(closing))
        async with asyncio.timeout(60):
            await closing[0]
