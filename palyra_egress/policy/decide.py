"""The judge: pure, synchronous, total.

`precheck` answers before any DNS query: a final `Verdict`, or `NeedsResolution` when a rule could
allow the request. `decide` answers with the addresses the name resolved to. Inputs: the compiled
policy, one canonical request, the time in Unix milliseconds, and `forbidden`, the (address, port)
pairs where the proxy and the fleet listen.

Order: shape of the host; canaries in the target; the floor for IP literals (platform addresses, our
own listeners, addresses no rule may lift); profile and what it demands of the worker; method and
path; deny rules; allow rules; addresses.
Invariants: deny beats allow; adding an allow rule never turns allow into deny, because a rule that
does not match in full only steps aside for a less specific one; a worker that is not what its
profile demands gets nothing, observed or not; a refused name is never resolved;
an IP literal is never resolved and pins only itself; observe mode lets POLICY refusals of
destinations pass and nothing else; any internal fault is a DENY with INTERNAL.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from palyra_egress.credentials.request_scan import find_in_target
from palyra_egress.destination.address_class import (
    NEVER_LIFTED,
    AddressClass,
    ClassifiedAddress,
    classify,
    format_address,
    is_covered,
)
from palyra_egress.destination.hostname import ends_in_number, is_canonical_host
from palyra_egress.policy.compile import (
    NO_PENALTY,
    CompiledDeny,
    CompiledPolicy,
    CompiledProfile,
    CompiledRule,
)
from palyra_egress.policy.fingerprint import NO_FINGERPRINT, fingerprint
from palyra_egress.policy.match import Candidates, Refusal, find_hosts, match_rules
from palyra_egress.policy.observing import observe, observing_rules, opening_observer
from palyra_egress.policy.paths import ReadPath, read_path
from palyra_egress.policy.schema import KNOWN_METHODS
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest, RequestKind
from palyra_egress.verdict import (
    INSPECTED,
    NO_LIMITS,
    USUAL_TLS,
    Effect,
    NeedsResolution,
    TlsMode,
    Verdict,
)

type Forbidden = frozenset[tuple[str, int]]
NOTHING_FORBIDDEN: Final[Forbidden] = frozenset()
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", re.ASCII)
_QUERY: Final = re.compile(r"[!\"$-~]*", re.ASCII)
_NO_PATH: Final = ReadPath("")


@dataclass(slots=True)
class Match:
    """What `precheck` found for one request under one policy at one time, for `decide`."""

    policy: CompiledPolicy
    request: EgressRequest
    candidates: Candidates
    now_unix_ms: int


def deny_without_rule(request: EgressRequest, reason: Reason, policy_digest: str) -> Verdict:
    """A refusal that no policy had a part in; total, whatever the request holds."""
    try:
        digest = fingerprint(request, policy_digest)
    except Exception:  # noqa: BLE001 the outer edge of the judge: a refusal must always be possible
        digest = NO_FINGERPRINT
    return Verdict(Effect.DENY, reason, digest, policy_digest)


def _deny(policy: CompiledPolicy, request: EgressRequest, refusal: Refusal) -> Verdict:
    rule = refusal.rule
    penalty = policy.penalties.get(refusal.reason, NO_PENALTY)
    if isinstance(rule, CompiledProfile) and not rule.contradicts(request.requester.facts):
        penalty = NO_PENALTY
    return Verdict(
        Effect.DENY,
        refusal.reason,
        fingerprint(request, policy.digest),
        policy.digest,
        rule_id=None if rule is None else rule.rule_id,
        policy_file=policy.file if rule is None else rule.file,
        line=None if rule is None else rule.line,
        consequence=penalty.consequence,
        strike_limit=penalty.limit,
        strike_window_ms=penalty.window_ms,
    )


def _allow(
    policy: CompiledPolicy,
    request: EgressRequest,
    rule: CompiledRule | None,
    would_deny: Reason | None,
    pinned: tuple[str, ...],
) -> Verdict:
    """CONNECT to an inspected tunnel carries no byte budget, and none a credential: the requests
    inside have theirs, and their way to meet the server. What only observe mode lets pass gets no
    credential either, and its server is met as usual."""
    decider = policy.profiles[request.requester.profile] if rule is None else rule
    carriage = policy.carriage if rule is None else rule.carriage
    if request.scheme == "http":  # there is no TLS to pass on, whatever the file's default is
        carriage = INSPECTED
    has_budgets = request.kind is RequestKind.REQUEST or carriage.mode is TlsMode.TUNNEL
    is_granted = would_deny is None and request.kind is RequestKind.REQUEST
    giver = rule if is_granted else None
    return Verdict(
        Effect.ALLOW,
        Reason.ALLOWED if would_deny is None else Reason.OBSERVED,
        fingerprint(request, policy.digest),
        policy.digest,
        None if rule is None else rule.rule_id,
        policy.file if rule is None else rule.file,
        None if rule is None else rule.line,
        pinned,
        decider.limits if has_budgets else NO_LIMITS,
        carriage,
        would_deny=would_deny,
        credentials=() if giver is None else giver.credentials,
        accounts=decider.accounts if has_budgets else (),
        log_query=rule is not None and would_deny is None and rule.log_query,
        upstream_tls=USUAL_TLS if giver is None else giver.upstream_tls,
    )


@lru_cache(maxsize=8192)
def _check_host(host: CanonicalHost) -> Reason | None:
    """The judge trusts nobody to have canonicalised; None means the host is in its one form."""
    if not host:
        return Reason.HOST_MISSING
    if is_canonical_host(host):
        return None
    return Reason.NUMERIC_HOST if ends_in_number(host) else Reason.HOST_MALFORMED


def _check_target(request: EgressRequest) -> Reason | None:
    reason = _check_host(request.host)
    if reason is not None:
        return reason
    if request.scheme not in ("http", "https"):
        return Reason.SCHEME_UNSUPPORTED
    return None if 1 <= request.port <= 65535 else Reason.PORT_MISSING


def _read_request(request: EgressRequest) -> ReadPath | Reason:
    """The comparable path, or what is malformed about method, path or query."""
    if request.kind is RequestKind.CONNECT:
        is_bare = request.method == "CONNECT" and not request.path and not request.query
        return _NO_PATH if is_bare else Reason.REQUEST_MALFORMED
    method = request.method
    if request.websocket and method != "GET":
        return Reason.REQUEST_MALFORMED
    if method not in KNOWN_METHODS and (_METHOD.fullmatch(method) is None or method == "CONNECT"):
        return Reason.METHOD_MALFORMED
    if request.query and _QUERY.fullmatch(request.query) is None:
        return Reason.REQUEST_MALFORMED
    return read_path(request.path) or Reason.PATH_MALFORMED


def _literal(host: CanonicalHost) -> ClassifiedAddress | None:
    """The classified address of an IP-literal host, None for a name."""
    if ":" not in host and not host[-1].isdigit():
        return None
    address = classify(host)
    return None if address.address_class is AddressClass.UNPARSABLE else address


@lru_cache(maxsize=64)
def _ports(forbidden: Forbidden) -> frozenset[int]:
    return frozenset(port for _, port in forbidden)


def _is_own_listener(address: ClassifiedAddress, port: int, forbidden: Forbidden) -> bool:
    """True for the proxy's and the fleet's listeners; an unspecified one stands for loopback."""
    if port not in _ports(forbidden):
        return False
    if (address.text, port) in forbidden:
        return True
    everywhere = ("0.0.0.0", port) in forbidden or ("::", port) in forbidden  # noqa: S104 compared
    if everywhere and any(part[2] is AddressClass.LOOPBACK for part in address.parts):
        return True
    if ":" not in address.text:
        return False
    return any((format_address(part[0], part[1]), port) in forbidden for part in address.parts)


def _floor(address: ClassifiedAddress, port: int, forbidden: Forbidden) -> Reason | None:
    """What no rule of any file can allow."""
    if address.address_class is AddressClass.METADATA:
        return Reason.METADATA_TARGET
    if forbidden and _is_own_listener(address, port, forbidden):
        return Reason.PROXY_TARGET
    return None


def _match(
    policy: CompiledPolicy,
    request: EgressRequest,
    literal: ClassifiedAddress | None,
    now_unix_ms: int,
    *,
    every: bool = False,
) -> Candidates | Refusal:
    """Profile, method, path, deny rules and allow rules, before observe mode has its say."""
    profile = policy.profiles.get(request.requester.profile)
    if profile is None:
        return Refusal(Reason.PROFILE_UNKNOWN)
    path = _read_request(request)
    if isinstance(path, Reason):
        return Refusal(path)
    if not policy.deny.is_empty:
        denied = find_hosts(policy.deny, request, literal)
        if denied:
            return Refusal(Reason.HOST_DENIED, denied[0])
    return match_rules(profile.index, request, literal, path, now_unix_ms, every=every)


def _unmet(policy: CompiledPolicy, request: EgressRequest) -> Refusal | None:
    """The refusal of a worker that is not what its profile demands."""
    profile = policy.profiles.get(request.requester.profile)
    if profile is None or profile.requires is None:
        return None
    if profile.requires.are_met(request.requester.facts):
        return None
    return Refusal(Reason.PROFILE_REQUIREMENTS, profile)


def _opens(
    policy: CompiledPolicy,
    request: EgressRequest,
    outcome: Candidates | Refusal,
    literal: ClassifiedAddress,
    now_unix_ms: int,
) -> bool:
    """Whether the rules open an address that is not public, whatever else they say."""
    if isinstance(outcome, Candidates):
        covering = _covering(policy, request, outcome, (literal,), now_unix_ms)
        return isinstance(covering, CompiledRule)
    near = outcome.rule
    if isinstance(near, CompiledRule) and is_covered(literal, near.private):
        return True
    if outcome.reason is Reason.HOST_DENIED or not (policy.observes or outcome.observer):
        return False
    rules = observing_rules(policy, request, literal, now_unix_ms)
    return any(is_covered(literal, rule.private) for rule in rules)


def _before_addresses(
    policy: CompiledPolicy, request: EgressRequest, now_unix_ms: int, forbidden: Forbidden
) -> tuple[Candidates | Refusal, ClassifiedAddress | None]:
    """Everything that can be said without an address, and the literal if the host is one."""
    reason = _check_target(request)
    if reason is not None:
        return Refusal(reason), None
    if policy.decoys is not None:
        finding = find_in_target((policy.decoys,), request)
        if finding is not None:
            return Refusal(finding.reason, policy.canaries[finding.name]), None
    literal = _literal(request.host)
    unmet = _unmet(policy, request)
    if literal is None:
        outcome = unmet or _match(policy, request, None, now_unix_ms)
        return (observe(policy, outcome) if isinstance(outcome, Refusal) else outcome), None
    reason = _floor(literal, request.port, forbidden)
    if reason is not None:
        return Refusal(reason), literal
    if literal.address_class in NEVER_LIFTED:
        return Refusal(Reason.PRIVATE_TARGET), literal
    outcome = _match(policy, request, literal, now_unix_ms)
    if isinstance(outcome, Candidates) and unmet is None:
        return outcome, literal
    is_public = literal.address_class is AddressClass.PUBLIC
    if not is_public and not _opens(policy, request, outcome, literal, now_unix_ms):
        near = None if isinstance(outcome, Candidates) else outcome.rule
        return Refusal(Reason.PRIVATE_TARGET, near), literal
    if unmet is not None or isinstance(outcome, Candidates):
        return unmet or outcome, literal
    return observe(policy, outcome), literal


def _denied_address(
    policy: CompiledPolicy, addresses: Sequence[ClassifiedAddress]
) -> CompiledDeny | None:
    """The deny rule that names one of the addresses, embedded ones included."""
    for address in addresses:
        for version, value, _ in address.parts:
            denied = policy.deny.find_address(version, value)
            if denied:
                return denied[0]
    return None


def _refuse_addresses(
    addresses: Sequence[ClassifiedAddress], port: int, forbidden: Forbidden, *, are_public: bool
) -> Reason | None:
    """What no rule can mend: the floor first, then text that is no address."""
    if not addresses:
        return Reason.RESOLUTION_EMPTY
    if are_public and port not in _ports(forbidden):
        return None
    failed = None
    for address in addresses:
        reason = _floor(address, port, forbidden)
        if reason is not None:
            return reason
        if address.address_class is AddressClass.UNPARSABLE:
            failed = Reason.RESOLUTION_FAILED
    return failed


def _covering(
    policy: CompiledPolicy,
    request: EgressRequest,
    candidates: Candidates,
    addresses: Sequence[ClassifiedAddress],
    now_unix_ms: int,
) -> CompiledRule | Reason:
    """The most specific rule whose `private` ranges hold every address that is not public."""
    rules = candidates.rules
    literal = _literal(request.host)
    if candidates.would_deny is None:
        outcome = _match(policy, request, literal, now_unix_ms, every=True)
        rules = outcome.rules if isinstance(outcome, Candidates) else rules
    elif candidates.would_deny is not Reason.HOST_DENIED:
        rules = (*rules, *observing_rules(policy, request, literal, now_unix_ms))
    for rule in rules:
        if all(is_covered(address, rule.private) for address in addresses):
            return rule
    if any(address.address_class is AddressClass.PUBLIC for address in addresses):
        return Reason.MIXED_ANSWER
    return Reason.PRIVATE_TARGET


def _with_addresses(
    policy: CompiledPolicy,
    request: EgressRequest,
    candidates: Candidates,
    addresses: Sequence[ClassifiedAddress],
    now_unix_ms: int,
    forbidden: Forbidden,
) -> Verdict:
    """Every address must pass the floor, the deny rules and the `private` ranges of one rule."""
    rules, would_deny = candidates.rules, candidates.would_deny
    rule = rules[0] if rules else None
    are_public = True
    for address in addresses:
        are_public = are_public and address.address_class is AddressClass.PUBLIC
    reason = _refuse_addresses(addresses, request.port, forbidden, are_public=are_public)
    if reason is not None:
        return _deny(policy, request, Refusal(reason, rule))
    denied = None if policy.deny.is_empty else _denied_address(policy, addresses)
    if denied is not None:
        if not policy.observes:
            return _deny(policy, request, Refusal(Reason.HOST_DENIED, denied))
        would_deny = would_deny or Reason.HOST_DENIED
    if not are_public:
        covering = _covering(policy, request, candidates, addresses, now_unix_ms)
        if isinstance(covering, Reason):
            opening = opening_observer(
                policy, request, _literal(request.host), candidates, addresses, now_unix_ms
            )
            if opening is None:
                return _deny(policy, request, Refusal(covering, rule))
            would_deny, covering = would_deny or covering, opening
        rule = covering
    pinned = tuple([address.text for address in addresses])
    if len(pinned) > 1:
        pinned = tuple(dict.fromkeys(pinned))
    return _allow(policy, request, rule, would_deny, pinned)


def precheck(
    policy: CompiledPolicy,
    request: EgressRequest,
    now_unix_ms: int,
    forbidden: Forbidden = NOTHING_FORBIDDEN,
) -> Verdict | NeedsResolution:
    """A verdict where no address is needed to give one; otherwise the name to resolve."""
    try:
        outcome, literal = _before_addresses(policy, request, now_unix_ms, forbidden)
        if isinstance(outcome, Refusal):
            return _deny(policy, request, outcome)
        if literal is None:
            carried = Match(policy, request, outcome, now_unix_ms)
            return NeedsResolution(request.host, request.port, carried)
        return _with_addresses(policy, request, outcome, (literal,), now_unix_ms, forbidden)
    except Exception:  # noqa: BLE001 the outer edge of the judge: a fault is a denial
        return deny_without_rule(request, Reason.INTERNAL, policy.digest)


def _carried(
    judged: NeedsResolution, policy: CompiledPolicy, request: EgressRequest, now_unix_ms: int
) -> Candidates | None:
    """What `precheck` found, if it was about this very policy and request and still holds.

    Time only takes rules away, so a rule that came first and is live still comes first. What
    observe mode let pass is found anew.
    """
    match = judged.match
    if not isinstance(match, Match) or match.policy is not policy or match.request is not request:
        return None
    found = match.candidates
    if found.would_deny is not None or now_unix_ms < match.now_unix_ms:
        return None
    return found if found.rules[0].is_live(now_unix_ms) else None


def decide(
    policy: CompiledPolicy,
    request: EgressRequest,
    addresses: Sequence[str],
    now_unix_ms: int,
    forbidden: Forbidden = NOTHING_FORBIDDEN,
    judged: NeedsResolution | None = None,
) -> Verdict:
    """The final verdict. For an IP-literal host only the literal itself is judged and pinned.

    `judged` is what `precheck` answered; the verdict is the same without it.
    """
    try:
        carried = None if judged is None else _carried(judged, policy, request, now_unix_ms)
        if carried is not None:
            classified = [classify(address) for address in addresses]
            return _with_addresses(policy, request, carried, classified, now_unix_ms, forbidden)
        outcome, literal = _before_addresses(policy, request, now_unix_ms, forbidden)
        if isinstance(outcome, Refusal):
            return _deny(policy, request, outcome)
        classified = [classify(address) for address in addresses] if literal is None else [literal]
        return _with_addresses(policy, request, outcome, classified, now_unix_ms, forbidden)
    except Exception:  # noqa: BLE001 the outer edge of the judge: a fault is a denial
        return deny_without_rule(request, Reason.INTERNAL, policy.digest)
