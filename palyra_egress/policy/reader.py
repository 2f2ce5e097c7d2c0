"""Reads a whole policy file into its model, reporting every mistake at once.

Input: the bytes of a file and the name to report. Output: a `PolicySpec`, or `PolicyFileError` with
all problems in the order of the file. Only shape and cross references are checked here; the tests
in the file are run by `policy.policy_tests` once the policy is compiled.
"""

from collections.abc import Iterable
from typing import Final

from palyra_egress.policy.document import Mapping, Node, Scalar, read_document
from palyra_egress.policy.errors import Position, ProblemCode, Problems, nearest
from palyra_egress.policy.fields import Fields, describe
from palyra_egress.policy.policy_tests import read_test
from palyra_egress.policy.rule_reader import (
    LIMIT_KEYS,
    read_deny,
    read_limits,
    read_rule,
    read_tls,
)
from palyra_egress.policy.schema import (
    LANGUAGE_VERSION,
    NOT_SUPPORTED_YET,
    DenySpec,
    EmbeddedTest,
    Mode,
    PolicySpec,
    ProfileSpec,
    RuleSpec,
    StrikeSpec,
)
from palyra_egress.policy.values import (
    EXPECTED_DURATION,
    EXPECTED_ID,
    is_identifier,
    read_duration_ms,
)
from palyra_egress.reasons import REASONS, Reason, ReasonClass

_TOP_KEYS: Final = frozenset(
    {"version", "name", "mode", "tls", "limits", "rules", "deny", "violations", "profiles", "tests"}
)
MAX_RATE: Final = 1_000_000
MAX_STRIKES: Final = 10_000
_PENALISED: Final = frozenset({ReasonClass.POLICY, ReasonClass.THREAT})
_REASONS_BY_SHORT: Final = {reason.short: reason for reason in Reason}
PENALISED_WORDS: Final = tuple(
    sorted(reason.short for reason in Reason if REASONS[reason].reason_class in _PENALISED)
)


def _read_version(fields: Fields) -> None:
    node = fields.require("version", f"version: {LANGUAGE_VERSION}")
    if node is None:
        return
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, bool) or value != LANGUAGE_VERSION:
        fields.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"'version' is {describe(node)}",
            f"the number {LANGUAGE_VERSION}",
        )


def _read_reasons(fields: Fields | None, name: str) -> tuple[Reason, ...]:
    """Short reason codes that may cost a worker something."""
    if fields is None:
        return ()
    reasons: list[Reason] = []
    for text, position in fields.texts(name, "reason codes") or []:
        reason = _REASONS_BY_SHORT.get(text)
        if reason is None:
            fields.refuse(
                position,
                ProblemCode.BAD_VALUE,
                f"no reason is called {text[:60]!r}",
                "the short code of a policy or threat reason",
                nearest(text, PENALISED_WORDS),
            )
        elif REASONS[reason].reason_class not in _PENALISED:
            fields.refuse(
                position,
                ProblemCode.NO_CONSEQUENCE,
                f"{text} is of the class {REASONS[reason].reason_class.value}: "
                "an outage or a clumsy client never costs a worker anything",
                "a reason of the class policy or threat",
            )
        else:
            reasons.append(reason)
    return tuple(dict.fromkeys(reasons))


def _read_strike(fields: Fields | None) -> StrikeSpec | None:
    strike = None if fields is None else fields.sub("strike", frozenset({"on", "limit", "window"}))
    if strike is None:
        return None
    for name in ("on", "limit", "window"):
        strike.require(name, "on, limit and window")
    on = _read_reasons(strike, "on")
    limit = strike.whole("limit", 1, MAX_STRIKES)
    node = strike.node("window")
    window_ms = read_duration_ms(node.text) if isinstance(node, Scalar) else None
    if node is not None and window_ms is None:
        strike.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"'window' is {describe(node)}",
            EXPECTED_DURATION,
        )
    if limit is None or window_ms is None:
        return None
    return StrikeSpec(on, limit, window_ms)


def _read_profiles(fields: Fields) -> tuple[ProfileSpec, ...]:
    node = fields.node("profiles")
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        fields.wrong(node, "profiles", "a mapping from profile names to lists of rule ids")
        return ()
    profiles: list[ProfileSpec] = []
    for name, (key, _) in node.entries.items():
        if not is_identifier(name):
            fields.refuse(
                key.position,
                ProblemCode.BAD_VALUE,
                f"a profile is called {name[:60]!r}",
                EXPECTED_ID,
            )
        inner = Fields(node, "profiles", frozenset(node.entries), fields.problems)
        rule_ids = inner.texts(name, "rule ids") or []
        profiles.append(ProfileSpec(name, key.position, tuple(rule_ids)))
    return tuple(profiles)


def _check_ids(specs: Iterable[RuleSpec | DenySpec], problems: Problems) -> None:
    """Rules and deny rules share one space of ids: an id in an audit entry names one rule."""
    seen: dict[str, Position] = {}
    for spec in specs:
        if spec.rule_id in seen:
            problems.add(
                spec.position,
                ProblemCode.DUPLICATE_ID,
                f"the id {spec.rule_id!r} is taken by line {seen[spec.rule_id].line}",
                expected="each id once",
            )
        elif spec.rule_id:
            seen[spec.rule_id] = spec.position


def _check_references(
    profiles: tuple[ProfileSpec, ...],
    rules: tuple[RuleSpec, ...],
    tests: tuple[EmbeddedTest, ...],
    problems: Problems,
) -> None:
    rule_ids = {rule.rule_id for rule in rules}
    for profile in profiles:
        for rule_id, position in profile.rule_ids:
            if rule_id not in rule_ids:
                problems.add(
                    position,
                    ProblemCode.UNKNOWN_RULE,
                    f"no rule has the id {rule_id[:60]!r}",
                    expected="the id of a rule of this file",
                    suggestion=nearest(rule_id, rule_ids),
                )
    names = {profile.name for profile in profiles}
    for test in tests:
        name = test.request.requester.profile
        expects_unknown = test.expected_reason is Reason.PROFILE_UNKNOWN
        if name and name not in names and not expects_unknown:
            problems.add(
                test.position,
                ProblemCode.UNKNOWN_PROFILE,
                f"no profile is called {name[:60]!r}",
                expected="a profile of this file",
                suggestion=nearest(name, names),
            )


def _read_top(root: Mapping, file: str, problems: Problems) -> PolicySpec:
    fields = Fields(root, "a policy", _TOP_KEYS, problems, NOT_SUPPORTED_YET["top"])
    _read_version(fields)
    name = fields.identifier("name")
    mode = fields.choice("mode", Mode, Mode.ENFORCE)
    tls = fields.sub("tls", frozenset({"default"}))
    if tls is not None:
        read_tls(tls, "default")
    limits = fields.sub(
        "limits", LIMIT_KEYS | {"requests_per_minute"}, NOT_SUPPORTED_YET["rule limits"]
    )
    rules = [read_rule(item, problems) for item in fields.items("rules", "rules") or ()]
    deny = [read_deny(item, problems) for item in fields.items("deny", "deny rules") or ()]
    violations = fields.sub("violations", frozenset({"quarantine", "strike"}))
    tests = [read_test(item, problems) for item in fields.items("tests", "tests") or ()]
    spec = PolicySpec(
        file=file,
        name=name,
        mode=mode,
        limits=read_limits(limits),
        requests_per_minute=(
            None if limits is None else limits.whole("requests_per_minute", 1, MAX_RATE)
        ),
        rules=tuple(rule for rule in rules if rule is not None),
        deny=tuple(rule for rule in deny if rule is not None),
        quarantine=_read_reasons(violations, "quarantine"),
        strike=_read_strike(violations),
        profiles=_read_profiles(fields),
        tests=tuple(test for test in tests if test is not None),
    )
    _check_ids((*spec.rules, *spec.deny), problems)
    _check_references(spec.profiles, spec.rules, spec.tests, problems)
    return spec


def read_policy(source: bytes, file: str) -> PolicySpec:
    """The model of one file; raises `PolicyFileError` with every problem in it."""
    problems = Problems(file)
    root: Node | None = read_document(source, problems)
    spec: PolicySpec | None = None
    if isinstance(root, Mapping):
        spec = _read_top(root, file, problems)
    elif root is not None:
        problems.add(
            root.position,
            ProblemCode.WRONG_TYPE,
            f"a policy is {describe(root)}",
            expected="a mapping with version, name, rules and profiles",
        )
    if spec is None or problems.found:
        problems.raise_all()
    return spec
