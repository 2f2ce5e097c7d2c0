"""Reads one policy file into its model, reporting every mistake at once.

Input: the bytes of a file. Output: a `PolicyPart`; problems are added to the collector. Only the
file's own shape is checked here: ids and references are looked at by `policy.compose` once all the
files of the policy are read, its tests are run by `policy.policy_tests` once it is compiled.
"""

from typing import Final

from palyra_egress.policy.canary_reader import read_canaries
from palyra_egress.policy.document import read_document
from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_egress.policy.fields import Fields, describe
from palyra_egress.policy.ignore_reader import read_ignores
from palyra_egress.policy.language import POLICY
from palyra_egress.policy.policy_tests import read_test
from palyra_egress.policy.profile_reader import read_profiles
from palyra_egress.policy.rule_reader import read_deny, read_limits, read_rule
from palyra_egress.policy.schema import (
    LANGUAGE_VERSION,
    MAX_STRIKES,
    PENALISED,
    PENALISED_WORDS,
    Mode,
    PolicyPart,
    PolicySpec,
    StrikeSpec,
)
from palyra_egress.policy.values import (
    EXPECTED_DURATION,
    EXPECTED_INCLUDE,
    is_include,
    read_duration_ms,
)
from palyra_egress.reasons import REASONS, Reason
from palyra_egress.verdict import TlsMode
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Mapping, Node, Position, Scalar

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


def _read_includes(fields: Fields) -> tuple[tuple[str, Position], ...]:
    """The names of the files that this one includes; whether they exist is not asked here."""
    includes: dict[str, Position] = {}
    for text, position in fields.texts("include", "names of files") or []:
        if not is_include(text):
            message = f"{text[:80]!r} cannot be included"
            fields.refuse(position, ProblemCode.BAD_INCLUDE, message, EXPECTED_INCLUDE)
        elif text in includes:
            message = f"{text[:80]!r} is included twice"
            fields.refuse(position, ProblemCode.BAD_INCLUDE, message, "each file once")
        else:
            includes[text] = position
    return tuple(includes.items())


def _settings(fields: Fields, *sections: Fields | None) -> dict[str, Position]:
    """Where this file sets what only one file of a policy may set."""
    places: dict[str, Position] = {}
    mode = fields.mapping.entries.get("mode")
    if mode is not None:
        places["mode"] = mode[0].position
    for section in sections:
        entries = {} if section is None else section.mapping.entries
        what = "" if section is None else section.section.what.strip("'")
        for name, (key, _) in entries.items():
            if (what, name) != ("violations", "quarantine"):
                places[f"{what}.{name}"] = key.position
    return places


def _read_top(root: Mapping, file: str, problems: Problems) -> PolicyPart:
    fields = Fields(root, POLICY, problems)
    _read_version(fields)
    name = fields.identifier("name")
    mode = fields.choice("mode", Mode, Mode.ENFORCE)
    mode_node = fields.node("mode")
    tls = fields.sub("tls")
    limits = fields.sub("limits")
    rules = [read_rule(item, problems) for item in fields.items("rules", "rules") or ()]
    deny = [read_deny(item, problems) for item in fields.items("deny", "deny rules") or ()]
    violations = fields.sub("violations")
    tests = [read_test(item, problems) for item in fields.items("tests", "tests") or ()]
    spec = PolicySpec(
        file=file,
        name=name,
        mode=mode,
        limits=read_limits(limits),
        rules=tuple(rule for rule in rules if rule is not None),
        deny=tuple(rule for rule in deny if rule is not None),
        quarantine=_read_reasons(violations, "quarantine"),
        strike=_read_strike(violations),
        profiles=read_profiles(fields),
        tests=tuple(test for test in tests if test is not None),
        ignores=read_ignores(fields.sub("lint"), problems),
        mode_position=None if mode_node is None else mode_node.position,
        files=(file,),
        tls=TlsMode.INSPECT if tls is None else tls.choice("default", TlsMode, TlsMode.INSPECT),
        canaries=read_canaries(fields, problems),
    )
    settings = _settings(fields, tls, limits, violations)
    return PolicyPart(spec, _read_includes(fields), settings, frozenset(fields.meant))


def read_part(source: bytes, problems: Problems) -> PolicyPart | None:
    """One file, alone; None if it is no mapping. Problems are added to the collector."""
    root: Node | None = read_document(source, problems)
    if isinstance(root, Mapping):
        return _read_top(root, problems.file, problems)
    if root is not None:
        problems.add(
            root.position,
            ProblemCode.WRONG_TYPE,
            # a text is not repeated: it may be a key, given by mistake
            f"a policy is {'a text' if isinstance(root, Scalar) else describe(root)}",
            expected="a mapping with version, name, rules and profiles",
        )
    return None
