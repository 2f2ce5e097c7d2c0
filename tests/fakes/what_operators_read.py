"""The part of a fake fleet that operators read: the proxies' traffic, and no evidence."""

from collections.abc import Callable, Iterable
from functools import cached_property

from palyra_fleet.signals.traffic import TrafficBook
from palyra_fleet.wire.models import EventView, ViolationView
from palyra_fleet.wire.traffic_models import TrafficReport, TrafficView


class ReadByOperators:
    """Mixed into `FakeFleetService`, with the real book of traffic."""

    clock: Callable[[], int]
    log: list[EventView]
    proxies: dict[str, bytes]

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

    async def violations(
        self, worker_id: str | None, limit: int, before: str | None = None
    ) -> tuple[ViolationView, ...]:
        self._enter("violations")
        return ()

    async def profiles_of(self, lease_ids: Iterable[str]) -> dict[str, str]:
        self._enter("profiles_of")
        return {}

    async def recent_events(
        self, worker_id: str | None, limit: int, before_seq: int | None = None
    ) -> tuple[EventView, ...]:
        self._enter("recent_events")
        newest = [event for event in reversed(self.log) if worker_id in {None, event.worker_id}]
        return tuple(one for one in newest if before_seq is None or one.seq < before_seq)[:limit]
