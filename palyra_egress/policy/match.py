"""Which allow rules match a request in full, and if none does, what stopped the nearest one.

Input: one profile's index, a canonical request, the comparable form of its path, the time. Output:
`Candidates` (most specific first; never empty unless observe mode lets a refusal pass) or a
`Refusal`. The most specific host pattern comes first, inside it the most specific path; the order
of the file plays no part.

CONNECT is judged as CONNECT: a rule matches if it could allow anything at that host and port over
the request's scheme. Of several refusals the one that got furthest is told: scheme, port, method,
path, upgrade, expiry.
"""

from dataclasses import dataclass
from typing import Final

from palyra_egress.destination.address_class import ClassifiedAddress
from palyra_egress.destination.hostpattern import HostIndex
from palyra_egress.policy.compile import (
    CompiledCanary,
    CompiledDeny,
    CompiledProfile,
    CompiledRule,
    HostRules,
    MethodRules,
)
from palyra_egress.policy.paths import ReadPath
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, RequestKind


@dataclass(slots=True)
class Refusal:
    """Why no rule allows the request, the nearest rule (or the profile whose demands are not met),
    and a live rule that only observes."""

    reason: Reason
    rule: CompiledRule | CompiledDeny | CompiledCanary | CompiledProfile | None = None
    observer: CompiledRule | None = None


@dataclass(slots=True)
class Candidates:
    """Rules that match in full, most specific first; `would_deny` is what observe mode let pass."""

    rules: tuple[CompiledRule, ...]
    would_deny: Reason | None = None


_FURTHEST: Final = {
    reason: rank
    for rank, reason in enumerate(
        (
            Reason.HOST_NOT_ALLOWED,
            Reason.SCHEME_NOT_ALLOWED,
            Reason.PORT_NOT_ALLOWED,
            Reason.METHOD_NOT_ALLOWED,
            Reason.PATH_NOT_ALLOWED,
            Reason.UPGRADE_NOT_ALLOWED,
            Reason.PATH_MALFORMED,
            Reason.RULE_EXPIRED,
            Reason.BUDGET_ZERO,
        )
    )
}


def find_hosts[T](
    index: HostIndex[T], request: EgressRequest, literal: ClassifiedAddress | None
) -> list[T]:
    """What an index holds for the request's host, most specific first."""
    if literal is None:
        return index.find_name(request.host)
    part = literal.parts[0]
    return index.find_address(part.version, part.value)


def _end_of_segments(form: str, count: int) -> int:
    """Where the first `count` segments of a path end, or the whole path if it has no more."""
    end = 0
    for _ in range(count):
        end = form.find("/", end + 1)
        if end < 0:
            return len(form)
    return end


def _on_path(method_rules: MethodRules, path: ReadPath) -> list[CompiledRule]:
    """Rules whose paths match, in both readings where a slash was encoded."""
    form, decoded = path.form, path.decoded_slashes
    rules: list[CompiledRule] = []
    if decoded is None and form in method_rules.exact:
        rules.extend(method_rules.exact[form])
    end = _end_of_segments(form, method_rules.depth)
    while end >= 0:  # the literal beginnings of the path, whole segments only, longest first
        for _, pattern, rule in method_rules.by_prefix.get(form[:end], ()):
            if pattern is None or (
                pattern.matches(form) and (decoded is None or pattern.matches(decoded))
            ):
                rules.append(rule)
        end = form.rfind("/", 0, end)
    return rules


def _stopped(
    rule: CompiledRule, request: EgressRequest, path: ReadPath, now_unix_ms: int
) -> Reason | None:
    """What keeps a rule that matches in full from allowing."""
    if request.websocket and not rule.websocket:
        return Reason.UPGRADE_NOT_ALLOWED
    if path.decoded_slashes is not None and not rule.encoded_slash:
        return Reason.PATH_MALFORMED
    if rule.until_unix_ms is not None and now_unix_ms >= rule.until_unix_ms:
        return Reason.RULE_EXPIRED
    return Reason.BUDGET_ZERO if rule.is_budget_zero else None


def _missed(host_rules: HostRules, request: EgressRequest) -> Refusal:
    """The first condition that no rule of this host meets, with the nearest rule."""
    rules = host_rules.by_endpoint.get((request.scheme, request.port))
    if rules is not None:
        return Refusal(Reason.METHOD_NOT_ALLOWED, rules[0])
    rules = host_rules.by_scheme.get(request.scheme)
    if rules is not None:
        return Refusal(Reason.PORT_NOT_ALLOWED, rules[0])
    if host_rules.by_scheme:
        return Refusal(Reason.SCHEME_NOT_ALLOWED, next(iter(host_rules.by_scheme.values()))[0])
    return Refusal(Reason.HOST_NOT_ALLOWED, host_rules.rules[0])


def _full_matches(
    host_rules: HostRules, request: EgressRequest, path: ReadPath
) -> list[CompiledRule] | Refusal:
    """The rules of one host that match the whole request, never an empty list."""
    if request.kind is RequestKind.CONNECT:
        endpoint = (request.scheme, request.port)
        return host_rules.connect.get(endpoint) or _missed(host_rules, request)
    method_rules = host_rules.by_method.get((request.scheme, request.port, request.method))
    if method_rules is None:
        return _missed(host_rules, request)
    return _on_path(method_rules, path) or Refusal(Reason.PATH_NOT_ALLOWED, method_rules.nearest)


def _further(best: Refusal | None, refusal: Refusal) -> Refusal:
    if best is not None and _FURTHEST[refusal.reason] <= _FURTHEST[best.reason]:
        return best
    return refusal


def _observer(hosts: list[HostRules], now_unix_ms: int) -> CompiledRule | None:
    """A live rule of the most specific host pattern that only observes."""
    for host_rules in hosts:
        for rule in host_rules.observing:
            if rule.is_live(now_unix_ms):
                return rule
    return None


def match_rules(
    index: HostIndex[HostRules],
    request: EgressRequest,
    literal: ClassifiedAddress | None,
    path: ReadPath,
    now_unix_ms: int,
    *,
    every: bool = False,
) -> Candidates | Refusal:
    """The first rule that allows the request (all of them with `every`), or why none does."""
    hosts = find_hosts(index, request, literal)
    found: list[CompiledRule] = []
    best: Refusal | None = None
    for host_rules in hosts:
        matches = _full_matches(host_rules, request, path)
        if isinstance(matches, Refusal):
            best = _further(best, matches)
            continue
        for rule in matches:
            reason = _stopped(rule, request, path, now_unix_ms)
            if reason is not None:
                best = _further(best, Refusal(reason, rule))
            elif not every:
                return Candidates((rule,))
            else:
                found.append(rule)
    if found:
        return Candidates(tuple(dict.fromkeys(found)))
    if best is None:
        return Refusal(Reason.HOST_NOT_ALLOWED)
    return Refusal(best.reason, best.rule, _observer(hosts, now_unix_ms))
