"""Which allow rules match a request in full, and if none does, what stopped the nearest one.

Input: one profile's index, a canonical request, the comparable form of its path, the time. Output:
`Candidates` (most specific first; never empty unless observe mode lets a refusal pass) or a
`Refusal`. The most specific host pattern comes first, inside it the most specific path; the order
of the file plays no part.

CONNECT is judged as CONNECT: a rule matches if it could allow anything at that host and port over
https. Of several refusals the one that got furthest is told: scheme, port, method, path, expiry.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from palyra_egress.destination.address_class import ClassifiedAddress
from palyra_egress.destination.hostpattern import HostIndex
from palyra_egress.policy.compile import (
    CompiledDeny,
    CompiledRule,
    HostRules,
    MethodRules,
    PatternRow,
)
from palyra_egress.policy.paths import ReadPath
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, RequestKind

_NO_RULES: Final[tuple[CompiledRule, ...]] = ()
_NO_ROWS: Final[tuple[PatternRow, ...]] = ()


class Refusal(NamedTuple):
    """Why no rule allows the request, the nearest rule, and a live rule that only observes."""

    reason: Reason
    rule: CompiledRule | CompiledDeny | None = None
    observer: CompiledRule | None = None


class Candidates(NamedTuple):
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
            Reason.PATH_MALFORMED,
            Reason.RULE_EXPIRED,
            Reason.BUDGET_ZERO,
        )
    )
}


def find_hosts[T](
    index: HostIndex[T], request: EgressRequest, literal: ClassifiedAddress | None
) -> Iterator[T]:
    """What an index holds for the request's host, most specific first."""
    if literal is None:
        return index.find_name(request.host)
    part = literal.parts[0]
    return index.find_address(part.version, part.value)


def _prefixes(form: str, depth: int) -> list[str]:
    """The literal beginnings of a path, whole segments only, longest first, at most `depth`."""
    prefixes = [""]
    end = 0
    for _ in range(depth):
        end = form.find("/", end + 1)
        if end < 0:
            prefixes.append(form)
            break
        prefixes.append(form[:end])
    prefixes.reverse()
    return prefixes


def _on_path(method_rules: MethodRules, path: ReadPath) -> Iterator[CompiledRule]:
    """Rules whose paths match, in both readings where a slash was encoded."""
    form, decoded = path
    if decoded is None:
        yield from method_rules.exact.get(form, _NO_RULES)
    for prefix in _prefixes(form, method_rules.depth):
        for _, pattern, rule in method_rules.by_prefix.get(prefix, _NO_ROWS):
            if pattern is None or (
                pattern.matches(form) and (decoded is None or pattern.matches(decoded))
            ):
                yield rule


def _usable(
    rules: Iterator[CompiledRule], path: ReadPath, now_unix_ms: int, into: list[CompiledRule]
) -> Refusal | None:
    """Adds the rules that are live and not empty; otherwise says what stopped the first one."""
    refusal: Refusal | None = None
    for rule in rules:
        if path.decoded_slashes is not None and not rule.encoded_slash:
            reason = Reason.PATH_MALFORMED
        elif not rule.is_live(now_unix_ms):
            reason = Reason.RULE_EXPIRED
        elif rule.is_budget_zero:
            reason = Reason.BUDGET_ZERO
        else:
            if rule not in into:
                into.append(rule)
            continue
        if refusal is None or _FURTHEST[reason] > _FURTHEST[refusal.reason]:
            refusal = Refusal(reason, rule)
    return refusal


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


def _match_host(
    host_rules: HostRules,
    request: EgressRequest,
    path: ReadPath,
    now_unix_ms: int,
    into: list[CompiledRule],
) -> Refusal | None:
    if request.kind is RequestKind.CONNECT:
        rules = host_rules.connect.get(request.port)
        if rules is None:
            return _missed(host_rules, request)
        return _usable(iter(rules), path, now_unix_ms, into)
    method_rules = host_rules.by_method.get((request.scheme, request.port, request.method))
    if method_rules is None:
        return _missed(host_rules, request)
    before = len(into)
    refusal = _usable(_on_path(method_rules, path), path, now_unix_ms, into)
    if refusal is None and len(into) == before:
        return Refusal(Reason.PATH_NOT_ALLOWED, method_rules.nearest)
    return refusal


def match_rules(
    index: HostIndex[HostRules],
    request: EgressRequest,
    literal: ClassifiedAddress | None,
    path: ReadPath,
    now_unix_ms: int,
) -> Candidates | Refusal:
    """Every rule of the profile that allows the request, or why there is none."""
    found: list[CompiledRule] = []
    best: Refusal | None = None
    observer: CompiledRule | None = None
    for host_rules in find_hosts(index, request, literal):
        refusal = _match_host(host_rules, request, path, now_unix_ms, found)
        if refusal is not None and (
            best is None or _FURTHEST[refusal.reason] > _FURTHEST[best.reason]
        ):
            best = refusal
        if observer is None and host_rules.observing:
            observer = next((r for r in host_rules.observing if r.is_live(now_unix_ms)), None)
    if found:
        return Candidates(tuple(found))
    if best is None:
        return Refusal(Reason.HOST_NOT_ALLOWED)
    return Refusal(best.reason, best.rule, observer)
