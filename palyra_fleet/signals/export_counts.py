"""What became of exported events, for metrics and alarms. Pure. Times: Unix ms."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

ALARM_AFTER_MS: Final = 60_000


class ExportProblem(StrEnum):
    """Why a receiver did not take events. A closed set: labels of a metric, and no secret."""

    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    LATE = "late"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    FAILED = "failed"
    SECRET = "secret_unusable"  # noqa: S105 (a reason)
    STORE = "store_unreadable"
    CURSOR = "cursor_unwritable"
    STOPPED = "stopped"


@dataclass(slots=True)
class ExportCounts:
    """One receiver. `waiting_since_unix_ms` is when the oldest event was that it did not take."""

    delivered: int = 0
    skipped: int = 0
    failures: Counter[ExportProblem] = field(default_factory=Counter)
    problem: ExportProblem | None = None
    waiting_since_unix_ms: int | None = None

    def took(self, count: int) -> None:
        self.delivered += count
        self.problem = None

    def failed(self, problem: ExportProblem) -> None:
        self.failures[problem] += 1
        self.problem = problem

    def caught_up(self) -> None:
        self.problem, self.waiting_since_unix_ms = None, None

    def lag_ms(self, now_unix_ms: int) -> int:
        """How old the oldest event is that was not taken; 0 if there is none."""
        since = self.waiting_since_unix_ms
        return 0 if since is None else max(0, now_unix_ms - since)

    def alarm(self, now_unix_ms: int) -> str | None:
        """What somebody should look at, without a word about where events go."""
        late_s = self.lag_ms(now_unix_ms) // 1000
        if self.problem is ExportProblem.STOPPED:
            return "events are not exported any more: start the fleet again"
        if late_s * 1000 < ALARM_AFTER_MS:
            return None
        why = "its receiver is slow" if self.problem is None else self.problem.value
        return f"an event waits for its export for {late_s} s: {why}"
