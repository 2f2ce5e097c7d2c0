"""What a new policy allows that the old one did not, what it refuses that the old one allowed.

Input: two policies' models. Output: changes, the newly allowed first. Compared is what the rules
mean, not how they are written: a grant of the new policy that some grant of the old one covers is
not newly allowed. Where covering cannot be decided pattern by pattern (several old patterns that
only together hold a new one) the change is reported: the answer "no widening" is to be trusted, the
answer "widening" may be too careful. Raised budgets and weaker consequences count as widening too.
A part of the model that the comparison does not know counts as widening (`compared_fields`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from palyra_egress.policy.compared_fields import uncompared
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.coverage import host_covers, hosts_overlap, until_covers
from palyra_egress.policy.credential_changes import credential_changes
from palyra_egress.policy.findings import Finding
from palyra_egress.policy.grants import (
    Grant,
    GrantIndex,
    grants_of,
    observers_of,
    rules_of,
)
from palyra_egress.policy.lint_codes import Level
from palyra_egress.policy.meaning import Meaning, meaning
from palyra_egress.policy.minor_changes import Minor, minor_changes
from palyra_egress.policy.requirements import Requirements, describe
from palyra_egress.policy.requirements import covers as requirements_cover
from palyra_egress.policy.schema import DenySpec, Mode, PolicySpec
from palyra_egress.policy.tunnel_changes import exception_changes, newly_passed_on
from palyra_egress.policy.upstream_tls_changes import upstream_tls_changes
from palyra_egress.policy.values import write_time
from palyra_fleet.strict_yaml.document import Position


class ChangeKind(StrEnum):
    """Kinds of change, in the order in which they are told."""

    NEWLY_ALLOWED = "newly_allowed"
    NEWLY_OBSERVED = "newly_observed"
    CREDENTIALS = "credentials"
    UPSTREAM_TLS = "upstream_tls"
    LOOSENED = "loosened"
    NOT_COMPARED = "not_compared"
    NEWLY_REFUSED = "newly_refused"
    TIGHTENED = "tightened"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class KindRow:
    title: str
    widens: bool


CHANGE_KINDS: Final = MappingProxyType(
    {
        ChangeKind.NEWLY_ALLOWED: KindRow("newly allowed", widens=True),
        ChangeKind.NEWLY_OBSERVED: KindRow("refusals that now pass, observed", widens=True),
        ChangeKind.CREDENTIALS: KindRow("credentials that are others now", widens=True),
        ChangeKind.UPSTREAM_TLS: KindRow(
            "servers that are verified, or shown who asks, in another way", widens=True
        ),
        ChangeKind.LOOSENED: KindRow("limits and consequences that are looser", widens=True),
        ChangeKind.NOT_COMPARED: KindRow("what the comparison does not know", widens=True),
        ChangeKind.NEWLY_REFUSED: KindRow("newly refused", widens=False),
        ChangeKind.TIGHTENED: KindRow("limits and consequences that are stricter", widens=False),
        ChangeKind.OTHER: KindRow("other", widens=False),
    }
)


@dataclass(frozen=True, slots=True)
class Change:
    """One change; file and line are where its cause stands, in the old file if it was removed."""

    kind: ChangeKind
    what: str
    file: str
    position: Position
    subject: str | None = None

    @property
    def widens(self) -> bool:
        return CHANGE_KINDS[self.kind].widens

    @property
    def finding(self) -> Finding:
        level = Level.WARNING if self.widens else Level.NOTE
        message = f"{CHANGE_KINDS[self.kind].title}: {self.what}"
        return Finding(
            self.file, self.position, level, self.kind.value, message, subject=self.subject
        )


def _conditions(grant: Grant) -> str:
    rule = grant.rule
    words = [f"until {write_time(rule.until_unix_ms)}"] if rule.until_unix_ms is not None else []
    words += ["with private ranges"] if rule.private else []
    words += ["with encoded slashes"] if rule.encoded_slash else []
    words += ["as WebSockets too"] if rule.websocket else []
    words += [f"carrying {binding}" for binding in rule.credentials]
    words += [str(rule.upstream_tls)] if rule.upstream_tls.named else []
    words += [f"requires {describe(grant.requires)}"] if grant.requires is not None else []
    return f" ({', '.join(words)})" if words else ""


def _place(grant: Grant) -> str:
    path = "/**" if grant.path is None else grant.path.text
    return f"{grant.scheme}://{grant.host.text}:{grant.port}{path}{_conditions(grant)}"


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to ask: what one policy gives and the `other` does not, and how that is told."""

    gives: ChangeKind
    observes: ChangeKind
    other: str
    denied: str
    prefix: str


_FORTH: Final = _Way(
    ChangeKind.NEWLY_ALLOWED, ChangeKind.NEWLY_OBSERVED, "in the old policy", "no longer denied", ""
)
_BACK: Final = _Way(
    ChangeKind.NEWLY_REFUSED,
    ChangeKind.NEWLY_REFUSED,
    "in the new policy",
    "now denied",
    "no longer: ",
)


def _whom(requires: Requirements | None) -> str:
    return "any worker" if requires is None else f"workers with {describe(requires)}"


def _why(grant: Grant, near: list[Grant], other: str) -> str:
    """What is more about a grant whose place the other policy knows."""
    if not near:
        return ""
    rule = near[0].rule
    if not requirements_cover(near[0].requires, grant.requires):
        return f"; {other} only for {_whom(near[0].requires)}"
    if not until_covers(rule.until_unix_ms, grant.rule.until_unix_ms):
        return f"; {other} only until {write_time(rule.until_unix_ms or 0)}"
    if rule.private != grant.rule.private:
        return f"; {other} with other private ranges"
    return f"; {other} without encoded slashes"


def _uncovered(new: PolicySpec, old: PolicySpec, way: _Way) -> Iterator[tuple[str, Grant]]:
    """What `new` allows and no grant of `old` covers: a line for each place, methods joined."""
    index = GrantIndex(grants_of(old))
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None], Grant]] = {}
    for grant in grants_of(new):
        near = index.near(grant)
        if any(other.covers(grant) for other in near):
            continue
        place = _place(grant) + _why(grant, near, way.other)
        profiles, methods, _ = found.setdefault((grant.rule.rule_id, place), ({}, {}, grant))
        profiles[grant.profile] = None
        methods[grant.method] = None
    for (_, place), (profiles, methods, grant) in found.items():
        yield f"{', '.join(profiles)}: {','.join(methods)} {place}", grant


def _reaches(deny: DenySpec, spec: PolicySpec) -> bool:
    """True if something that the policy allows or lets pass may be at a host the rule denies."""
    if spec.mode is Mode.OBSERVE:
        return bool(spec.profiles)
    return any(
        denied.addresses is not None or hosts_overlap(denied, host)
        for _, rule in rules_of(spec)
        for denied in deny.hosts
        for host in rule.hosts
    )


def _denials_gone(new: PolicySpec, old: PolicySpec) -> Iterator[tuple[str, DenySpec]]:
    """Deny rules of `old` that `new` does not cover, where `new` allows something."""
    for deny in old.deny:
        gone = [
            host.text
            for host in deny.hosts
            if not any(host_covers(wide, host) for other in new.deny for wide in other.hosts)
        ]
        if gone and _reaches(deny, new):
            yield ", ".join(gone), deny


def _rule_meanings(spec: PolicySpec, profile: str) -> list[Meaning]:
    rules = [rule for name, rule in rules_of(spec) if name == profile]
    return [meaning(rule) for rule in sorted(rules, key=lambda rule: rule.rule_id)]


def _newly_observed(
    new: PolicySpec, old: PolicySpec
) -> Iterator[tuple[str, str, Position, str | None]]:
    """Refusals that the new policy lets pass and the old one did not, and where that is said."""
    whole = new.mode is Mode.OBSERVE
    if whole and old.mode is Mode.ENFORCE:
        place = new.mode_position or Position()
        yield "the whole policy only observes", new.file, place, None
    known = {profile.name: profile for profile in old.profiles}
    for profile in new.profiles:
        was = known.get(profile.name)
        if whole and was and not requirements_cover(was.requires, profile.requires):
            yield (
                f"{profile.name}: refusals of {_whom(profile.requires)} pass, "
                f"and before only those of {_whom(was.requires)}",
                profile.file,
                profile.position,
                profile.name,
            )
        if whole and profile.name not in known:
            yield (
                f"{profile.name}: a new profile of a policy that observes",
                profile.file,
                profile.position,
                profile.name,
            )
        mine = [rule for name, rule in rules_of(new) if name == profile.name]
        observing = mine if whole else [rule for rule in mine if rule.observe]
        was_mine = [rule for name, rule in rules_of(old) if name == profile.name]
        slashes = bool(observing) and any(rule.encoded_slash for rule in (*mine, *was_mine))
        if (slashes or any(rule.private for rule in observing)) and (
            _rule_meanings(new, profile.name) != _rule_meanings(old, profile.name)
        ):
            what = "paths with encoded slashes" if slashes else "private addresses"
            yield (
                f"{profile.name}: which {what} pass while observing may be others now",
                profile.file,
                profile.position,
                profile.name,
            )
    before = list(observers_of(old))
    told: set[tuple[str, str]] = set()
    for observer in observers_of(new):
        key = (observer.profile, observer.rule.rule_id)
        if key in told or any(other.covers(observer) for other in before):
            continue
        told.add(key)
        text = f"{observer.profile}: the rule {observer.rule.rule_id} observes {observer.host.text}"
        rule = observer.rule
        yield text, rule.file, rule.position, rule.rule_id


def _one_way(new: PolicySpec, old: PolicySpec, way: _Way) -> list[Change]:
    """What `new` gives and `old` does not; asked both ways round."""
    changes = [
        Change(way.gives, what, grant.rule.file, grant.rule.position, grant.rule.rule_id)
        for what, grant in _uncovered(new, old, way)
    ]
    changes += [
        Change(way.gives, f"{hosts} is {way.denied}", deny.file, deny.position, deny.rule_id)
        for hosts, deny in _denials_gone(new, old)
    ]
    changes += [
        Change(way.gives, f"{way.prefix}{what}", rule.file, rule.position, rule.rule_id)
        for what, rule in newly_passed_on(new, old)
    ]
    changes += [
        Change(way.observes, f"{way.prefix}{what}", file, position, subject)
        for what, file, position, subject in _newly_observed(new, old)
    ]
    return changes


def _minor(found: Iterable[Minor], file: str) -> Iterator[Change]:
    kinds = {
        1: ChangeKind.LOOSENED,
        -1: ChangeKind.TIGHTENED,
        0: ChangeKind.OTHER,
    }
    for minor in found:
        where = minor.file or file
        yield Change(kinds[minor.direction], minor.what, where, minor.position, minor.subject)


def diff_policies(old: PolicySpec, new: PolicySpec) -> tuple[Change, ...]:
    """Every change, what widens first; empty exactly if both mean the same."""
    if meaning(old) == meaning(new):
        return ()
    changes = [
        *_one_way(new, old, _FORTH),
        *_one_way(old, new, _BACK),
        *(
            replace(change, kind=ChangeKind.CREDENTIALS)
            for change in _minor(credential_changes(old, new), new.file)
        ),
        *(
            replace(change, kind=ChangeKind.UPSTREAM_TLS) if change.widens else change
            for change in _minor(upstream_tls_changes(old, new), new.file)
        ),
        *_minor(minor_changes(old, new), new.file),
        *_minor(exception_changes(old, new), new.file),
    ]
    changes += [Change(ChangeKind.NOT_COMPARED, *found) for found in uncompared(old, new)]
    if not changes:
        what = "the files differ in ways that change no verdict"
        changes = [Change(ChangeKind.OTHER, what, new.file, Position())]
    order = list(ChangeKind)
    return tuple(sorted(changes, key=lambda change: (order.index(change.kind), change.position)))


class PolicyChange(NamedTuple):
    """One policy in the place of another, by their digests, and what it opens, in words."""

    digest: str
    replaces_digest: str | None
    widening: tuple[str, ...]


def policy_change(old: CompiledPolicy | None, new: CompiledPolicy) -> PolicyChange:
    """What putting `new` in force in the place of `old` opens."""
    if old is None:
        return PolicyChange(new.digest, None, ("there was no policy before",))
    changes = diff_policies(old.spec, new.spec)
    words = tuple(change.what for change in changes if change.widens)
    return PolicyChange(new.digest, old.digest, words)


CHANGE_TITLES: Final = {kind.value: row.title for kind, row in CHANGE_KINDS.items()}
