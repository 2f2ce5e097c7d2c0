"""The part of a fake fleet that operators read: traffic, live leases, and no evidence."""

import asyncio
from collections.abc import Callable, Iterable
from functools import cached_property

from palyra_fleet.service.log_end import LogEnd
from palyra_fleet.signals.traffic import TrafficBook
from palyra_fleet.wire.lease_models import LeasesThat, LeaseView
from palyra_fleet.wire.models import EventView, LeaseAnswer, ViolationView
from palyra_fleet.wire.placement_models import OfferView
from palyra_fleet.wire.traffic_models import TrafficReport, TrafficView


class ReadByOperators:
    """Mixed into `FakeFleetService`, with the real book of traffic."""

    clock: Callable[[], int]
    log: list[EventView]
    proxies: dict[str, bytes]
    workers_waiting = 0
    _log_end: LogEnd

    def _enter(self, call: str) -> None:
        raise NotImplementedError

    @cached_property
    def _traffic(self) -> TrafficBook:
        return TrafficBook(self.clock())

    def report_traffic(self, proxy_id: str, report: TrafficReport) -> None:
        self._enter("report_traffic")
        self._traffic.reported(proxy_id, report, self.clock())

    def traffic_is_due(self, proxy_id: str) -> bool:
        return self._traffic.is_due(proxy_id, self.clock())

    def traffic(self) -> TrafficView:
        self._enter("traffic")
        return self._traffic.view(self.clock(), self.proxies)

    def held_leases(self) -> list[LeaseAnswer]:
        raise NotImplementedError

    async def leases(
        self, limit: int, before_fence: int | None = None, those: LeasesThat = LeasesThat.LIVE
    ) -> tuple[LeaseView, ...]:
        self._enter("leases")
        held = [] if those is LeasesThat.ENDED else self.held_leases()
        wanted = [one for one in held if before_fence is None or one.fence < before_fence]
        return tuple(map(_lease_view_of, wanted))[:limit]

    def waits(self, worker_id: str) -> bool:
        self._enter("waits")
        return False

    def waiting(self) -> int:
        return self.workers_waiting

    def offer_to(self, worker_id: str) -> OfferView | None:
        self._enter("offer_to")
        return None

    async def violations(
        self, worker_id: str | None, limit: int, before: str | None = None
    ) -> tuple[ViolationView, ...]:
        self._enter("violations")
        return ()

    async def profiles_of(self, lease_ids: Iterable[str]) -> dict[str, str]:
        self._enter("profiles_of")
        return {}

    @cached_property
    def _readers(self) -> set[asyncio.Task[object]]:
        return set()

    @property
    def readers(self) -> int:
        """How many calls that once waited for the log are not over."""
        return sum(not task.done() for task in self._readers)

    async def log_goes_beyond(self, seq: int, within_s: float) -> None:
        if (task := asyncio.current_task()) is not None:
            self._readers.add(task)
        await self._log_end.beyond(seq, within_s)

    async def recent_events(
        self, worker_id: str | None, limit: int, before_seq: int | None = None
    ) -> tuple[EventView, ...]:
        self._enter("recent_events")
        newest = [event for event in reversed(self.log) if worker_id in {None, event.worker_id}]
        return tuple(one for one in newest if before_seq is None or one.seq < before_seq)[:limit]


def _lease_view_of(lease: LeaseAnswer) -> LeaseView:
    return LeaseView(
        lease_id=lease.lease_id,
        fence=lease.fence,
        worker_id=lease.worker_id,
        run_id=lease.run_id,
        state="busy",
        egress_profile=lease.egress_profile,
        principal="ops",
        grant_id=lease.lease_id,
        granted_at_unix_ms=0,
        expires_at_unix_ms=lease.expires_at_unix_ms,
        grant_expires_at_unix_ms=lease.expires_at_unix_ms,
    )
