"""Approval rules for tests: one that fits every worker of the ledger's world, and others."""

from dataclasses import replace

from palyra_fleet.leases.approval_rules import ApprovalRule, ApprovalRules

RULE = ApprovalRule(
    rule_id="rule-1",
    owner="platform",
    reason="tests",
    until_unix_ms=5_000_000_000_000,
    tools=("tool",),
    runs=("run-*",),
    profiles=("profile",),
    lease_ms=300,
    uses_per_hour=3,
    at_once=1,
    identities=("identity-of-*", "0*"),
)


def rules_of(*rules: ApprovalRule) -> ApprovalRules:
    return ApprovalRules.of(rules, "f" * 64)


RULES = rules_of(RULE)
OTHER_RULES = rules_of(replace(RULE, at_once=2, uses_per_hour=20))
"""The same rule, which says something else."""
NO_RULES = ApprovalRules.of((), "0" * 64)
