"""The part of a fake fleet that operators read: the proxies' traffic, and no evidence."""

from collections.abc import Callable
from functools import cached_property

from palyra_fleet.signals.traffic import TrafficBook
from palyra_fleet.wire.models import ViolationView
from palyra_fleet.wire.traffic_models import TrafficReport, TrafficView


class ReadByOperators:
    """Mixed into `FakeFleetService`, with the real book of traffic."""

    clock: Callable[[], int]

    def _enter(self, call: str) -> None:
        raise NotImplementedError

    @cached_property
    def _traffic(self) -> TrafficBook:
        return TrafficBook(self.clock())

    def report_traffic(self, proxy_id: str, report: TrafficReport) -> None:
        self._enter("report_traffic")
        self._traffic.reported(proxy_id, report, self.clock())

    def traffic(self) -> TrafficView:
        self._enter("traffic")
        return self._traffic.view(self.clock())

    async def violations(self, worker_id: str | None, limit: int) -> tuple[ViolationView, ...]:
        self._enter("violations")
        return ()
