"""Warnings about a policy that loads but may not mean what its author thinks.

Input: a compiled policy and the time in Unix milliseconds. Output: problems with warning codes, in
the order of the file: nothing is allowed at all, a rule that allows nothing, a rule that is expired
or soon will be, a rule no profile uses, a rule whose every host a deny rule takes away.
"""

from typing import Final

from palyra_egress.destination.hostpattern import HostPattern, PatternKind
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import Position, Problem, ProblemCode
from palyra_egress.policy.schema import PolicySpec, RuleSpec

SOON_MS: Final = 14 * 24 * 3_600_000


def _covers(deny: HostPattern, host: HostPattern) -> bool:
    """True if every host that `host` names is named by `deny`."""
    if deny.addresses is not None or host.addresses is not None:
        if deny.addresses is None or host.addresses is None:
            return False
        same_version = deny.addresses.version == host.addresses.version
        low, high = host.addresses.low, host.addresses.high
        return same_version and deny.addresses.low <= low and high <= deny.addresses.high
    is_below = host.name.endswith(f".{deny.name}")
    is_same = host.name == deny.name
    match deny.kind:
        case PatternKind.NAME:
            return is_same and host.kind is PatternKind.NAME
        case PatternKind.BELOW:
            return is_below or (is_same and host.kind is PatternKind.BELOW)
        case _:
            return is_below or is_same


def _rule_warnings(
    rule: RuleSpec, spec: PolicySpec, used: set[str], now_unix_ms: int
) -> list[tuple[ProblemCode, str, str]]:
    found: list[tuple[ProblemCode, str, str]] = []
    empty = not rule.hosts or not rule.endpoints or not rule.methods or rule.paths == ()
    if empty or rule.limits.max_response_bytes == 0:
        found.append(
            (ProblemCode.ALLOWS_NOTHING, "allows nothing", "no empty list, no zero budget")
        )
    if rule.until_unix_ms is not None and rule.until_unix_ms <= now_unix_ms:
        found.append((ProblemCode.RULE_EXPIRED, "has expired", "a later `until`, or no rule"))
    elif rule.until_unix_ms is not None and rule.until_unix_ms - now_unix_ms <= SOON_MS:
        found.append((ProblemCode.RULE_EXPIRES_SOON, "expires within 14 days", "a decision"))
    if rule.rule_id not in used:
        found.append((ProblemCode.RULE_UNUSED, "is in no profile", "a profile that names it"))
    if rule.hosts and all(
        any(_covers(denied, host) for deny in spec.deny for denied in deny.hosts)
        for host in rule.hosts
    ):
        found.append((ProblemCode.RULE_SHADOWED, "is taken away by deny rules", "another host"))
    return found


def lint(policy: CompiledPolicy, now_unix_ms: int) -> tuple[Problem, ...]:
    """Everything worth a second look in a policy that is good."""
    spec = policy.spec
    used = {rule_id for profile in spec.profiles for rule_id, _ in profile.rule_ids}
    warnings: list[Problem] = []
    if not used:
        warnings.append(
            Problem(
                spec.file,
                Position(),
                ProblemCode.ALLOWS_NOTHING,
                "no profile has a rule: everything is refused",
                "rules, and profiles that name them",
            )
        )
    for rule in spec.rules:
        for code, what, expected in _rule_warnings(rule, spec, used, now_unix_ms):
            warnings.append(
                Problem(spec.file, rule.position, code, f"the rule {rule.rule_id} {what}", expected)
            )
    return tuple(warnings)
