"""Unites the files of a policy into one model, and checks what only the whole can show.

Input: the files as they were read, in reading order: depth-first in the order of each `include`,
an including file after what it includes, so the outermost file is last. Output: one `PolicySpec`;
problems are added to the collector, each in the file it is about. Rules, deny rules, profiles,
tests, ignores and reasons that quarantine are united. Nothing overrides anything: an id or a
profile that two files define, and a setting that two files set, are problems that name both
places. Only the outermost file may observe, and its name is the policy's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Final

from palyra_egress.policy.carriage import settle
from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_egress.policy.schema import (
    CanarySpec,
    DenySpec,
    Mode,
    PolicyPart,
    PolicySpec,
    ProfileSpec,
    RuleSpec,
)
from palyra_egress.reasons import Reason
from palyra_egress.verdict import Limits, TlsMode
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Position

type Place = tuple[str, Position]


def _place(at: Place, file: str) -> str:
    """A place as a problem in `file` names it."""
    return f"line {at[1].line}" if at[0] == file else f"{at[0]}:{at[1].line}:{at[1].column}"


def _check_ids(specs: Iterable[RuleSpec | DenySpec | CanarySpec], problems: Problems) -> None:
    """Rules, deny rules and canaries share one space of ids: one in an audit entry names one."""
    seen: dict[str, Place] = {}
    for spec in specs:
        if spec.rule_id in seen:
            problems.of(spec.file).add(
                spec.position,
                ProblemCode.DUPLICATE_ID,
                f"the id {spec.rule_id!r} is taken by {_place(seen[spec.rule_id], spec.file)}",
                expected="each id once",
            )
        elif spec.rule_id:
            seen[spec.rule_id] = (spec.file, spec.position)


def _check_profiles(profiles: Iterable[ProfileSpec], problems: Problems) -> None:
    seen: dict[str, Place] = {}
    for profile in profiles:
        if profile.name in seen:
            problems.of(profile.file).add(
                profile.position,
                ProblemCode.DUPLICATE_ID,
                f"the profile {profile.name!r} is taken by "
                f"{_place(seen[profile.name], profile.file)}",
                expected="each profile in one file",
            )
        seen.setdefault(profile.name, (profile.file, profile.position))


def _check_settings(parts: Sequence[PolicyPart], problems: Problems) -> None:
    seen: dict[str, Place] = {}
    for part in parts:
        file = part.spec.file
        for name, position in part.settings.items():
            if name in seen:
                problems.of(file).add(
                    position,
                    ProblemCode.SET_TWICE,
                    f"{name!r} is set here and at {_place(seen[name], file)}",
                    expected="each setting in one file",
                )
            seen.setdefault(name, (file, position))
    for part in parts[:-1]:
        if part.spec.mode is Mode.OBSERVE:
            problems.of(part.spec.file).add(
                part.spec.mode_position or Position(),
                ProblemCode.BAD_INCLUDE,
                "an included file says that the policy only observes",
                expected="`mode: observe` in the outermost file only",
            )


def _check_rule(rule_id: str, known: set[str], position: Position, problems: Problems) -> None:
    if rule_id not in known:
        problems.add(
            position,
            ProblemCode.UNKNOWN_RULE,
            f"no rule has the id {rule_id[:60]!r}",
            expected="the id of a rule of this policy",
            suggestion=nearest(rule_id, known),
        )


def _check_profile(name: str, known: set[str], position: Position, problems: Problems) -> None:
    if name not in known:
        problems.add(
            position,
            ProblemCode.UNKNOWN_PROFILE,
            f"no profile is called {name[:60]!r}",
            expected="a profile of this policy",
            suggestion=nearest(name, known),
        )


_WITH_IDS: Final = frozenset({"rules", "deny", "canaries"})


def check_references(spec: PolicySpec, problems: Problems, unread: frozenset[str]) -> None:
    """Every name of a rule or profile must be one of the policy's. What a misspelt key left unread
    cannot be looked for: one slip is one problem."""
    specs: list[RuleSpec | DenySpec | CanarySpec] = [*spec.rules, *spec.deny, *spec.canaries]
    rule_ids = {rule.rule_id for rule in spec.rules}
    every_id = {one.rule_id for one in specs}
    names = {profile.name for profile in spec.profiles}
    if "" not in every_id and not unread & _WITH_IDS:
        for profile in spec.profiles:
            for rule_id, position in profile.rule_ids:
                _check_rule(rule_id, rule_ids, position, problems.of(profile.file))
        for ignore in spec.ignores:
            if ignore.rule_id is not None:
                _check_rule(ignore.rule_id, every_id, ignore.position, problems.of(ignore.file))
    if "profiles" in unread:
        return
    for test in spec.tests:
        name = test.request.requester.profile
        if name and test.expected_reason is not Reason.PROFILE_UNKNOWN:
            _check_profile(name, names, test.position, problems.of(test.file))
    for ignore in spec.ignores:
        if ignore.profile is not None:
            _check_profile(ignore.profile, names, ignore.position, problems.of(ignore.file))


def _first[T](values: Iterable[T | None]) -> T | None:
    """The value of the one file that sets it."""
    return next((value for value in values if value is not None), None)


def _default_tls(parts: Sequence[PolicyPart]) -> TlsMode:
    """What the one file says that sets it."""
    said = [part.spec.tls for part in parts if "tls.default" in part.settings]
    return said[-1] if said else TlsMode.INSPECT


def compose(parts: Sequence[PolicyPart], problems: Problems) -> PolicySpec:
    """The united model of one or more files, the outermost last; ids and settings are checked."""
    _check_settings(parts, problems)
    specs = [part.spec for part in parts]
    modes = [part.spec.mode for part in parts if "mode" in part.settings]
    tls = _default_tls(parts)
    united = replace(
        specs[-1],
        tls=tls,
        mode=modes[-1] if modes else Mode.ENFORCE,
        limits=Limits(
            **{
                limit.name: _first(getattr(spec.limits, limit.name) for spec in specs)
                for limit in fields(Limits)
            }
        ),
        rules=tuple(settle(rule, tls, problems) for spec in specs for rule in spec.rules),
        deny=tuple(deny for spec in specs for deny in spec.deny),
        quarantine=tuple(dict.fromkeys(reason for spec in specs for reason in spec.quarantine)),
        strike=_first(spec.strike for spec in specs),
        profiles=tuple(profile for spec in specs for profile in spec.profiles),
        tests=tuple(test for spec in specs for test in spec.tests),
        ignores=tuple(ignore for spec in specs for ignore in spec.ignores),
        files=tuple(spec.file for spec in specs),
        canaries=tuple(canary for spec in specs for canary in spec.canaries),
    )
    named: list[RuleSpec | DenySpec | CanarySpec] = []
    for spec in specs:
        named += [*spec.rules, *spec.deny, *spec.canaries]
    _check_ids(named, problems)
    _check_profiles(united.profiles, problems)
    return united
