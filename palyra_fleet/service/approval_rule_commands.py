"""Approval rules at work: what they give to workers that ask, and what is shown of them.

Mixed into `FleetService`. The rules in force are followed by `FleetCore`. Times: Unix ms.
"""

from ulid import ULID

from palyra_fleet.leases.approval_rules import RunAsked
from palyra_fleet.service.core import FleetCore
from palyra_fleet.wire.approval_models import ApprovalRuleView
from palyra_fleet.wire.models import LeaseRequest


class ApprovalRuleCommands(FleetCore):
    """What rules give."""

    async def _approve_by_rule(self, worker_id: str, request: LeaseRequest, now: int) -> None:
        """An approval by the first rule that fits, durable with the lease that uses it or before.
        Raises a refusal where none does."""
        if request.approval is None or not self._rules.rules:
            return
        asked = RunAsked(
            request.run_id,
            request.approval.tool_name,
            request.approval.egress_profile,
            request.workspace_scope.read_only,
        )
        grant_id = str(ULID.from_timestamp(now))
        outcome = self._manager.approve_by_rule(
            self._rules, worker_id, request.session_epoch, asked, grant_id, now
        )
        await self._settle(outcome)

    def approval_rules(self) -> tuple[ApprovalRuleView, ...]:
        """In the order of the file."""
        counts, now = self._manager.state.rules, self._now()
        return tuple(
            ApprovalRuleView(
                rule_id=rule.rule_id,
                owner=rule.owner,
                until_unix_ms=rule.until_unix_ms,
                at_once=counts.at_once(rule.rule_id),
                most_at_once=rule.at_once,
                in_the_last_hour=counts.in_the_last_hour(rule.rule_id, now),
                most_in_an_hour=rule.uses_per_hour,
                rules_sha256=self._rules.file_sha256,
            )
            for rule in self._rules.rules
        )
