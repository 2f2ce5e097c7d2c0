"""Keeps a session attested: at half of what is left, at once where the fleet demands it, and again.

What the fleet demands is told in the answers to heartbeats, as it stands then; a demand is noticed
once and not with every beat, so that one that cannot be met is tried again at the pace of failures
and does not hurry the fleet. A new key is made where one is demanded, and the session goes on with
it. What cannot be proved until the attestation ends, ends the session: that is the session's to say
(`problem` tells why).
"""

import asyncio
import logging
import zlib
from collections.abc import Callable

from palyra_fleet.client import FleetError, FleetProblem
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import EvidenceDemanded
from palyra_fleet.worker.launcher import ArtifactChanged, EvidenceUnavailable
from palyra_fleet.worker.receipt import ReceiptRefused
from palyra_fleet.worker.standing import Standing
from palyra_fleet.worker.stop import Stop, StopKind
from palyra_fleet.worker.timekeeper import Timekeeper

_log = logging.getLogger(__name__)


class Proving:
    """`adopt` is called when a proof changed the session's standing, `stop` and `obey` where it
    must end."""

    def __init__(
        self,
        standing: Standing,
        time: Timekeeper,
        adopt: Callable[[], None],
        stop: Callable[[Stop], None],
        obey: Callable[[FleetProblem], None],
    ) -> None:
        self.problem: str | None = None
        self._standing = standing
        self._time = time
        self._adopt = adopt
        self._stop = stop
        self._obey = obey
        self._demanded: EvidenceDemanded | None = None
        self._told = asyncio.Event()

    def hear(self, demanded: EvidenceDemanded | None) -> None:
        """What the fleet demands of the session's evidence of now."""
        if demanded == self._demanded:
            return
        self._demanded = demanded
        if demanded is None:
            return
        wanted = "a new key and new evidence" if demanded.new_key else "new evidence"
        _log.warning("the fleet demands %s of this worker", wanted)
        self._standing.ends_at(demanded.due_at_unix_ms)
        self._adopt()
        self._told.set()

    async def prove_again(self) -> None:
        """Prove it now. Raises what `Standing.prove_again` does."""
        demanded = self._demanded
        await self._standing.prove_again(new_key=demanded is not None and demanded.new_key)
        self._demanded, self.problem = None, None
        self._told.clear()
        self._adopt()

    async def keep(self, stopped: asyncio.Future[Stop]) -> None:
        """Prove it again and again, until the session is stopped."""
        proofs = failures = 0
        while not stopped.done():
            name = f"{self._standing.answer.worker_id}/{proofs}/{failures}"
            spread = zlib.crc32(name.encode()) % 1000 / 1000
            now_s = self._time.now_s()
            await self._wait(self._standing.life.prove_after_s(now_s, failures, spread))
            if stopped.done():
                return
            try:
                await self.prove_again()
            except ArtifactChanged as changed:
                self._stop(Stop(StopKind.PROGRAM_CHANGED, str(changed)))
            except (FleetError, ReceiptRefused, EvidenceUnavailable) as error:
                failures += 1
                self._note(error, first=failures == 1 and not stopped.done())
            else:
                proofs, failures = proofs + 1, 0

    async def _wait(self, seconds: float) -> None:
        """So long, or until a demand is told that was not known."""
        told = spawn(self._told.wait(), "demand")
        asleep = spawn(self._time.sleep(seconds), "next proof")
        try:
            await asyncio.wait({told, asleep}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._told.clear()
            for task in (told, asleep):
                task.cancel()
            await asyncio.wait({told, asleep})  # takes nobody's cancellation for one of these

    def _note(self, error: FleetError | ReceiptRefused | EvidenceUnavailable, first: bool) -> None:
        if isinstance(error, FleetProblem):
            self._obey(error)
        self.problem = error.detail if isinstance(error, FleetProblem) else str(error)
        if first:
            _log.warning("this worker cannot attest again yet: %s", self.problem)
