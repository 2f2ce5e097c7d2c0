"""Bytes per hour, per worker and account: a sliding hour in steps of a minute. Pure,
bounded memory.

An account is what a rule, a profile or the file counts together. Bytes of bodies count when they
pass, out, in and both ways together, each in its own ledger and only where a limit is set; a budget
is spent when the last sixty minutes hold that many. All accounts of an exchange hold at once, so
the strictest ends it. A step that is only partly inside the hour counts whole, so a worker gets at
most its budget in any hour, never more. Times are monotonic milliseconds.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from palyra_egress.verdict import Account

STEP_MS: Final = 60_000
STEPS: Final = 61
MAX_LEDGERS: Final = 100_000


class Direction(StrEnum):
    """Which way bytes go, seen from the worker; BOTH is the sum."""

    OUT = "out"
    IN = "in"
    BOTH = "both"


def account_key(account_name: str, worker_id: str) -> str:
    """What one worker's part of an account is kept under."""
    return f"{account_name}/{worker_id}"


def _hours(account: Account) -> tuple[tuple[Direction, int | None], ...]:
    limits = account.limits
    return (
        (Direction.BOTH, limits.bytes_per_hour),
        (Direction.OUT, limits.request_bytes_per_hour),
        (Direction.IN, limits.response_bytes_per_hour),
    )


@dataclass(slots=True)
class _Ledger:
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
    """All ledgers by key (account, worker and direction), oldest use first."""

    _ledgers: dict[str, _Ledger] = field(default_factory=dict)

    def have_room(
        self,
        accounts: Iterable[Account],
        worker_id: str,
        declared_bytes: int,
        now_monotonic_ms: int,
    ) -> bool:
        """Whether a request with this declared body may begin. What it sends must fit; what it gets
        is not known yet, so a byte of it must fit."""
        for account in accounts:
            key = account_key(account.name, worker_id)
            for direction, limit in _hours(account):
                if limit is None:
                    continue
                sends = 0 if direction is Direction.IN else declared_bytes
                gets = 0 if direction is Direction.OUT else 1
                spent = self.spent(f"{key}/{direction}", now_monotonic_ms)
                if sends + gets and spent + sends + gets > limit:
                    return False
        return True

    def spend(
        self,
        accounts: Iterable[Account],
        worker_id: str,
        direction: Direction,
        count: int,
        now_monotonic_ms: int,
    ) -> bool:
        """Count bytes that pass in every account; False if any has had more than its hour."""
        is_within = True
        for account in accounts:
            key = account_key(account.name, worker_id)
            for counted, limit in _hours(account):
                if limit is not None and counted in (direction, Direction.BOTH):
                    taken = self.take(f"{key}/{counted}", count, now_monotonic_ms)
                    is_within = is_within and taken <= limit
        return is_within

    def spent(self, key: str, now_monotonic_ms: int) -> int:
        """The bytes of the last hour."""
        ledger = self._ledgers.get(key)
        if ledger is None:
            return 0
        ledger.forget_before(now_monotonic_ms // STEP_MS - STEPS + 1)
        return ledger.total

    def take(self, key: str, count: int, now_monotonic_ms: int) -> int:
        """Count bytes that pass; the bytes of the last hour with them."""
        ledger = self._ledgers.pop(key, None) or _Ledger()
        step = now_monotonic_ms // STEP_MS
        ledger.forget_before(step - STEPS + 1)
        ledger.add(step, count)
        self._ledgers[key] = ledger
        if len(self._ledgers) > MAX_LEDGERS:
            del self._ledgers[next(iter(self._ledgers))]
        return ledger.total
