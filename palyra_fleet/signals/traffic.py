"""TrafficBook: what the proxies report of their traffic, kept by the minute for three hours.

Reports are cumulative, and the book keeps what was added since the one before. A proxy whose count
went back, or whose start is another, has started anew: what it counts then is new. The first report
after a start of the fleet is where the book begins, and nothing of it is new, unless the proxy
started later than the fleet. Bounded by enrolled proxies, minutes and the report's own bounds; in
memory alone, so a restart begins with nothing, and says so. Nothing here decides anything: a proxy
that lies is wrong in its own numbers. Pure but for its own numbers. Times: Unix ms.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from palyra_fleet.wire.traffic_models import (
    MAX_PROXIES,
    MAX_REASONS,
    MINUTE_MS,
    MINUTES_KEPT,
    REASONS_LEFT_OUT,
    REPORTS_APART_MS,
    ProxyTraffic,
    TrafficMinute,
    TrafficReport,
    TrafficView,
)


@dataclass(slots=True)
class _Minute:
    """Sums of one minute; `at_unix_ms` is its start."""

    at_unix_ms: int
    allowed: int = 0
    refused: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    refused_by_reason: Counter[str] = field(default_factory=Counter)

    def add(self, report: TrafficReport, before: TrafficReport) -> None:
        """What the report counts beyond the one before it."""
        refused = _beyond(report.refused, before.refused)
        self.allowed += _beyond(report.allowed, before.allowed).total()
        self.refused += refused.total()
        self.bytes_out += report.bytes_out - before.bytes_out
        self.bytes_in += report.bytes_in - before.bytes_in
        _add_bounded(self.refused_by_reason, refused)

    def shown(self) -> TrafficMinute:
        return TrafficMinute(
            at_unix_ms=self.at_unix_ms,
            allowed=self.allowed,
            refused=self.refused,
            bytes_out=self.bytes_out,
            bytes_in=self.bytes_in,
            refused_by_reason=dict(self.refused_by_reason),
        )


@dataclass(slots=True)
class _Proxy:
    """One proxy's last report and its minutes, oldest first."""

    heard_at_unix_ms: int
    report: TrafficReport
    restarts: int = 0
    minutes: deque[_Minute] = field(default_factory=lambda: deque(maxlen=MINUTES_KEPT))


@dataclass(slots=True)
class TrafficBook:
    """All proxies that reported since `began_unix_ms`, the start of the fleet."""

    began_unix_ms: int
    _proxies: OrderedDict[str, _Proxy] = field(default_factory=OrderedDict)

    def reported(self, proxy_id: str, report: TrafficReport, now_unix_ms: int) -> None:
        """Take a report of an enrolled proxy."""
        nothing = TrafficReport(since_unix_ms=report.since_unix_ms)
        known = self._proxies.get(proxy_id)
        if known is None:
            before = nothing if report.since_unix_ms >= self.began_unix_ms else report
            known = self._proxies[proxy_id] = _Proxy(now_unix_ms, report)
        elif _began_anew(known.report, report):
            before = nothing
            known.restarts += 1
        else:
            before = known.report
        self._minute(known, now_unix_ms).add(report, before)
        known.heard_at_unix_ms, known.report = now_unix_ms, report
        self._proxies.move_to_end(proxy_id)
        if len(self._proxies) > MAX_PROXIES:
            self._proxies.popitem(last=False)

    def is_due(self, proxy_id: str, now_unix_ms: int) -> bool:
        """Whether a proxy may report again: reading a report costs more than any other call."""
        known = self._proxies.get(proxy_id)
        return known is None or not 0 <= now_unix_ms - known.heard_at_unix_ms < REPORTS_APART_MS

    def view(self, now_unix_ms: int, enrolled: Collection[str]) -> TrafficView:
        """Everything that is kept of the last three hours. What proxies that are not enrolled any
        more, or silent for so long, had told is in no view."""
        first = now_unix_ms - MINUTES_KEPT * MINUTE_MS
        told = {
            name: proxy
            for name, proxy in sorted(self._proxies.items())
            if name in enrolled and proxy.heard_at_unix_ms > first
        }
        sums: dict[int, _Minute] = {}
        for proxy in told.values():
            for minute in proxy.minutes:
                if minute.at_unix_ms > first:
                    _add_up(sums.setdefault(minute.at_unix_ms, _Minute(minute.at_unix_ms)), minute)
        return TrafficView(
            known_since_unix_ms=self.began_unix_ms,
            minutes=tuple(sums[at].shown() for at in sorted(sums)),
            proxies=tuple(
                ProxyTraffic(
                    proxy_id=name,
                    heard_at_unix_ms=proxy.heard_at_unix_ms,
                    restarts=proxy.restarts,
                    report=proxy.report,
                )
                for name, proxy in told.items()
            ),
        )

    def mark(self) -> object:
        """Changes when anything was counted."""
        return tuple((name, one.report) for name, one in sorted(self._proxies.items()))

    def _minute(self, proxy: _Proxy, now_unix_ms: int) -> _Minute:
        at = now_unix_ms - now_unix_ms % MINUTE_MS
        if not proxy.minutes or proxy.minutes[-1].at_unix_ms < at:
            proxy.minutes.append(_Minute(at))
        return proxy.minutes[-1]


def _beyond(now: Mapping[str, int], before: Mapping[str, int]) -> Counter[str]:
    return Counter({name: count - before.get(name, 0) for name, count in now.items()})


def _began_anew(before: TrafficReport, now: TrafficReport) -> bool:
    """Whether the counts are those of another run of the proxy."""
    went_back = any(
        later.get(name, 0) < count
        for earlier, later in ((before.allowed, now.allowed), (before.refused, now.refused))
        for name, count in earlier.items()
    )
    fewer_bytes = now.bytes_out < before.bytes_out or now.bytes_in < before.bytes_in
    return went_back or fewer_bytes or now.since_unix_ms != before.since_unix_ms


def _add_up(total: _Minute, one: _Minute) -> None:
    total.allowed += one.allowed
    total.refused += one.refused
    total.bytes_out += one.bytes_out
    total.bytes_in += one.bytes_in
    _add_bounded(total.refused_by_reason, one.refused_by_reason)


def _add_bounded(total: Counter[str], more: Mapping[str, int]) -> None:
    """Add up by reason; reasons beyond as many as a report may hold are one. A proxy may report a
    thousand names a minute."""
    for reason, count in more.items():
        if count:
            has_room = reason in total or len(total) < MAX_REASONS
            total[reason if has_room else REASONS_LEFT_OUT] += count
