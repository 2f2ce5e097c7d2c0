"""Releases that take two persons: one asks, another approves. Mixed into `FleetService`.

`actor` is the name of a principal, and two names are two persons: a principal's other token has the
same name. What is asked, by whom and until when is part of the worker's record, so that it is as
durable as the quarantine. Times: Unix ms.
"""

import heapq

from ulid import ULID

from palyra_fleet.ledger.wire_views import release_request_view
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service.operator_commands import MAX_LISTED, OperatorCommands
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.release_models import ReleaseRequestView


class ReleaseCommands(OperatorCommands):
    """Requests for releases: made, listed, approved, withdrawn, void."""

    @property
    def two_person_release(self) -> bool:
        """Whether a release takes a second person."""
        return self._settings.policy.two_person_release

    async def request_release(self, actor: str, worker_id: str, reason: str) -> ReleaseRequestView:
        """Takes what a release takes: evidence newer than the quarantine, with a new key."""

        async def act(now: int) -> ReleaseRequestView:
            release_id = str(ULID.from_timestamp(now))
            outcome = self._manager.request_release(worker_id, release_id, actor, reason, now)
            await self._settle(outcome)
            return self._open_request(worker_id)

        return await self._locked(act)

    async def release_requests(self) -> tuple[ReleaseRequestView, ...]:
        """What is asked and not answered, the oldest first, a bounded number."""
        await self._caught_up()
        asked = self._manager.state.worker_by_release
        oldest = heapq.nsmallest(MAX_LISTED, asked)  # ids are ULIDs
        return tuple(self._open_request(asked[release_id]) for release_id in oldest)

    async def release_request_of(self, worker_id: str) -> ReleaseRequestView | None:
        """What is asked about this worker, if anything is."""
        await self._caught_up()
        worker = self._manager.state.workers.get(worker_id)
        return None if worker is None else release_request_view(worker)

    async def approve_release(self, actor: str, release_id: str, reason: str) -> wire.WorkerView:
        """By another principal than the one who asked. Answers the worker, released."""

        async def act(now: int) -> wire.WorkerView:
            worker_id = self._manager.state.worker_by_release.get(release_id, "")
            await self._settle(self._manager.approve_release(release_id, actor, reason, now))
            return self._worker_view(worker_id)

        return await self._locked(act)

    async def withdraw_release(self, actor: str, release_id: str, reason: str) -> None:
        async def act(now: int) -> None:
            await self._settle(self._manager.withdraw_release(release_id, actor, reason, now))

        await self._locked(act)

    async def void_releases_of(self, asker: str, actor: str, reason: str) -> None:
        """Nobody approves what this principal asked: its token may not have been in its hands."""

        async def act(now: int) -> None:
            for worker_id in tuple(self._manager.state.worker_by_release.values()):
                if self._open_request(worker_id).asked_by == asker:
                    await self._settle(self._manager.void_release(worker_id, actor, reason, now))

        await self._locked(act)

    def _open_request(self, worker_id: str) -> ReleaseRequestView:
        view = release_request_view(self._manager.state.workers[worker_id])
        if view is None:
            raise FleetRefusal(FleetReason.RELEASE_UNKNOWN, "the request was answered meanwhile")
        return view
