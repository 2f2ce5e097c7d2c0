"""What each approval rule has out, and gave within the last hour: indexes over durable records.

Filled from grants and leases alone, so that a restart counts as before. Used approvals count for an
hour from when they were given, whatever became of them. Pure. Times: Unix ms.
"""

from collections import Counter
from dataclasses import dataclass, field

from palyra_fleet.leases.approval_rules import RuleMark
from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease

HOUR_MS = 3_600_000


@dataclass(slots=True)
class RuleCounts:
    """By rule id."""

    given: dict[str, dict[str, int]] = field(default_factory=dict)
    unused: dict[str, dict[str, None]] = field(default_factory=dict)
    leases: Counter[str] = field(default_factory=Counter)

    def take_grant(self, grant: WorkerApprovalGrant, usable: bool) -> None:
        """A grant was made, used, withdrawn or read from the store."""
        mark = grant.rule
        if mark is None:
            return
        self._give(mark, grant.grant_id)
        if usable:
            self.unused.setdefault(mark.rule_id, {})[grant.grant_id] = None

    def forget_grant(self, grant: WorkerApprovalGrant) -> None:
        """It can be used no more."""
        if grant.rule is not None:
            self.unused.get(grant.rule.rule_id, {}).pop(grant.grant_id, None)

    def take_lease(self, lease: WorkerLease, more: int) -> None:
        """A lease began to live (1) or ended (-1)."""
        if lease.rule_id is not None:
            self.leases[lease.rule_id] += more

    def at_once(self, rule_id: str) -> int:
        return self.leases[rule_id] + len(self.unused.get(rule_id, ()))

    def in_the_last_hour(self, rule_id: str, now_unix_ms: int) -> int:
        since = now_unix_ms - HOUR_MS
        return sum(at > since for at in self.given.get(rule_id, {}).values())

    def copy(self) -> "RuleCounts":
        """One that may change by itself."""
        return RuleCounts(
            {rule: dict(given) for rule, given in self.given.items()},
            {rule: dict(unused) for rule, unused in self.unused.items()},
            Counter(self.leases),
        )

    def _give(self, mark: RuleMark, grant_id: str) -> None:
        given = self.given.setdefault(mark.rule_id, {})
        given[grant_id] = mark.at_unix_ms
        newest = max(given.values())
        for old in [one for one, at in given.items() if at <= newest - HOUR_MS]:
            del given[old]
