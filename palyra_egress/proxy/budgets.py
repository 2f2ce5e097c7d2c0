"""Bytes per hour, per worker and rule: a sliding hour in steps of a minute. Pure, bounded memory.

Bytes count when they pass, both ways together; a budget is spent when the last sixty minutes hold
that many. A step that is only partly inside the hour counts whole, so a worker gets at most its
budget in any hour, never more. Times are monotonic milliseconds.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

STEP_MS: Final = 60_000
STEPS: Final = 61
MAX_ACCOUNTS: Final = 100_000


@dataclass(slots=True)
class _Account:
    """The steps that hold bytes, oldest first: (step number, bytes)."""

    steps: deque[tuple[int, int]] = field(default_factory=deque)
    total: int = 0

    def forget_before(self, first_step: int) -> None:
        while self.steps and self.steps[0][0] < first_step:
            self.total -= self.steps.popleft()[1]

    def add(self, step: int, count: int) -> None:
        if self.steps and self.steps[-1][0] == step:
            count_before = self.steps.pop()[1]
            self.steps.append((step, count_before + count))
        else:
            self.steps.append((step, count))
        self.total += count


@dataclass(slots=True)
class ByteBudgets:
    """All accounts by key (worker and rule), oldest use first."""

    _accounts: dict[str, _Account] = field(default_factory=dict)

    def spent(self, key: str, now_monotonic_ms: int) -> int:
        """The bytes of the last hour."""
        account = self._accounts.get(key)
        if account is None:
            return 0
        account.forget_before(now_monotonic_ms // STEP_MS - STEPS + 1)
        return account.total

    def take(self, key: str, count: int, now_monotonic_ms: int) -> int:
        """Count bytes that pass; the bytes of the last hour with them."""
        account = self._accounts.pop(key, None) or _Account()
        step = now_monotonic_ms // STEP_MS
        account.forget_before(step - STEPS + 1)
        account.add(step, count)
        self._accounts[key] = account
        if len(self._accounts) > MAX_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        return account.total
