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
from palyra_egress.policy.ignore_reader import read_ignores
from palyra_egress.policy.language import POLICY, Holds, Key, Section
from palyra_egress.policy.policy_tests import read_test
from palyra_egress.policy.rule_reader import read_deny, read_rule, read_sizes, read_tls
from palyra_egress.policy.schema import (
    LANGUAGE_VERSION,
    MAX_RATE,
    MAX_STRIKES,
    PENALISED,
    PENALISED_WORDS,
    DenySpec,
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
from palyra_egress.reasons import REASONS, Reason

_REASONS_BY_SHORT: Final = {reason.short: reason for reason in Reason}


def _read_version(fields: Fields) -> None:
    node = fields.node("version")
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
        elif REASONS[reason].reason_class not in PENALISED:
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
    strike = None if fields is None else fields.sub("strike")
    if strike is None:
        return None
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
    names = Section("'profiles'", tuple(Key(name, Holds.RULE_ID, "") for name in node.entries))
    inner = Fields(node, names, fields.problems)
    profiles: list[ProfileSpec] = []
    for name, (key, _) in node.entries.items():
        if not is_identifier(name):
            fields.refuse(
                key.position,
                ProblemCode.BAD_VALUE,
                f"a profile is called {name[:60]!r}",
                EXPECTED_ID,
            )
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


def _check_references(spec: PolicySpec, problems: Problems) -> None:
    rule_ids = {rule.rule_id for rule in spec.rules}
    for profile in spec.profiles:
        for rule_id, position in profile.rule_ids:
            _check_rule(rule_id, rule_ids, position, problems)
    names = {profile.name for profile in spec.profiles}
    for test in spec.tests:
        name = test.request.requester.profile
        if name and test.expected_reason is not Reason.PROFILE_UNKNOWN:
            _check_profile(name, names, test.position, problems)
    every_id = rule_ids | {deny.rule_id for deny in spec.deny}
    for ignore in spec.ignores:
        if ignore.rule_id is not None:
            _check_rule(ignore.rule_id, every_id, ignore.position, problems)
        if ignore.profile is not None:
            _check_profile(ignore.profile, names, ignore.position, problems)


def _check_rule(rule_id: str, known: set[str], position: Position, problems: Problems) -> None:
    if rule_id not in known:
        problems.add(
            position,
            ProblemCode.UNKNOWN_RULE,
            f"no rule has the id {rule_id[:60]!r}",
            expected="the id of a rule of this file",
            suggestion=nearest(rule_id, known),
        )


def _check_profile(name: str, known: set[str], position: Position, problems: Problems) -> None:
    if name not in known:
        problems.add(
            position,
            ProblemCode.UNKNOWN_PROFILE,
            f"no profile is called {name[:60]!r}",
            expected="a profile of this file",
            suggestion=nearest(name, known),
        )


def _read_top(root: Mapping, file: str, problems: Problems) -> PolicySpec:
    fields = Fields(root, POLICY, problems)
    _read_version(fields)
    name = fields.identifier("name")
    mode = fields.choice("mode", Mode, Mode.ENFORCE)
    mode_node = fields.node("mode")
    tls = fields.sub("tls")
    if tls is not None:
        read_tls(tls, "default")
    limits = fields.sub("limits")
    rules = [read_rule(item, problems) for item in fields.items("rules", "rules") or ()]
    deny = [read_deny(item, problems) for item in fields.items("deny", "deny rules") or ()]
    violations = fields.sub("violations")
    tests = [read_test(item, problems) for item in fields.items("tests", "tests") or ()]
    spec = PolicySpec(
        file=file,
        name=name,
        mode=mode,
        limits=read_sizes(limits),
        requests_per_minute=(
            None if limits is None else limits.whole("requests_per_minute", 1, MAX_RATE)
        ),
        rules=tuple(rule for rule in rules if rule is not None),
        deny=tuple(rule for rule in deny if rule is not None),
        quarantine=_read_reasons(violations, "quarantine"),
        strike=_read_strike(violations),
        profiles=_read_profiles(fields),
        tests=tuple(test for test in tests if test is not None),
        ignores=read_ignores(fields.sub("lint"), problems),
        mode_position=None if mode_node is None else mode_node.position,
    )
    _check_ids((*spec.rules, *spec.deny), problems)
    _check_references(spec, problems)
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
