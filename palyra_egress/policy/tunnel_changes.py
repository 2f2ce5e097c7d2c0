"""Where tunnels would be passed on unseen, and what one policy passes on that another does not.

Input: policies' models. Output: for each place (profile, host pattern, port) the rules under which
a tunnel may be passed on there: rules that tunnel, unless a rule at the same or a more specific
pattern is certain to inspect instead, whatever the time and the addresses. Places are the patterns
that either policy writes: every host has one most specific of them, and is judged as that one is.
Which ClientHellos are accepted is compared at the same places.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from palyra_egress.destination.hostpattern import HostPattern
from palyra_egress.policy.coverage import host_covers, ranges_cover, split_host, until_covers
from palyra_egress.policy.grants import is_denied, rules_of
from palyra_egress.policy.minor_changes import Minor
from palyra_egress.policy.schema import Mode, PolicySpec, RuleSpec, is_budget_zero
from palyra_egress.verdict import TlsMode

EXCEPTIONS: Final = ("missing_sni", "ech")


class Place(NamedTuple):
    profile: str
    port: int
    host: HostPattern


class _Way(NamedTuple):
    """One pattern of one rule that a CONNECT may match."""

    host: HostPattern
    rule: RuleSpec


class Tunnels:
    """The ways of one policy, by profile, port and the name they write."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self._ways: dict[tuple[str, int], dict[str, list[_Way]]] = {}
        limits = {profile.name: profile.limits for profile in spec.profiles}
        for profile, rule in rules_of(spec):
            if not rule.methods or rule.paths == ():
                continue
            if is_budget_zero(rule.limits, limits[profile], spec.limits):
                continue
            for scheme, port in rule.endpoints:
                if scheme == "https":
                    names = self._ways.setdefault((profile, port), {})
                    for host in (part for pattern in rule.hosts for part in split_host(pattern)):
                        names.setdefault(host.name, []).append(_Way(host, rule))

    def places(self) -> Iterator[Place]:
        for (profile, port), names in self._ways.items():
            for ways in names.values():
                for way in ways:
                    yield Place(profile, port, way.host)

    def _at(self, place: Place) -> list[_Way]:
        """Every way that holds the whole place."""
        names = self._ways.get((place.profile, place.port), {})
        found: list[_Way] = []
        name = place.host.name
        while True:
            found += [way for way in names.get(name, ()) if host_covers(way.host, place.host)]
            if not name:
                return found
            name = name.partition(".")[2]

    def passed_on(self, place: Place) -> list[RuleSpec]:
        """The rules that may pass a tunnel on at this place."""
        if is_denied(place.host, self.spec):
            return []
        ways = self._at(place)
        inspecting = [way for way in ways if not way.rule.is_tunnelled]
        return [
            tunnel.rule
            for tunnel in ways
            if tunnel.rule.is_tunnelled
            and not any(_comes_first(other, tunnel) for other in inspecting)
        ]

    def accepts(self, place: Place) -> frozenset[str]:
        """The exceptions that any rule at this place's most specific pattern makes."""
        ways = self._at(place)
        nearest = [way for way in ways if all(host_covers(one.host, way.host) for one in ways)]
        return frozenset(
            name for way in nearest for name in EXCEPTIONS if getattr(way.rule.carriage, name)
        )


def _comes_first(inspecting: _Way, tunnel: _Way) -> bool:
    """Whether this rule inspects all that the other would pass on, at any time."""
    mine, other = inspecting.rule, tunnel.rule
    return (
        host_covers(tunnel.host, inspecting.host)
        and until_covers(mine.until_unix_ms, other.until_unix_ms)
        and ranges_cover(mine.private, other.private)
    )


def newly_passed_on(new: PolicySpec, old: PolicySpec) -> Iterator[tuple[str, RuleSpec]]:
    """What `new` may pass on unseen and `old` does not: a line for each rule and place."""
    if not any(rule.is_tunnelled for rule in new.rules):
        return
    after, before = Tunnels(new), Tunnels(old)
    told: set[str] = set()
    for place in dict.fromkeys((*after.places(), *before.places())):
        known = before.passed_on(place)
        for rule in after.passed_on(place):
            if any(_covers(other, rule) for other in known):
                continue
            host = f"{place.host.text}:{place.port}"
            what = f"{place.profile}: tunnels to {host}, unseen, by {rule.rule_id}"
            if what not in told:
                told.add(what)
                yield what, rule


def _covers(one: RuleSpec, other: RuleSpec) -> bool:
    return until_covers(one.until_unix_ms, other.until_unix_ms) and ranges_cover(
        one.private, other.private
    )


def exception_changes(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """Which ClientHellos are accepted now and were not, and the other way round; and how a policy
    that only observes carries what no rule allows."""
    before, after = Tunnels(old), Tunnels(new)
    for place in dict.fromkeys((*after.places(), *before.places())):
        yield from _between(place, before.accepts(place), after.accepts(place))
    if old.tls is not new.tls and Mode.OBSERVE in (old.mode, new.mode):
        direction = 1 if new.tls is TlsMode.TUNNEL else -1
        yield Minor(direction, f"what is only observed: tls {old.tls.value} → {new.tls.value}")


def _between(place: Place, was: Iterable[str], now: Iterable[str]) -> Iterator[Minor]:
    host = f"{place.profile}: {place.host.text}:{place.port}"
    for name in EXCEPTIONS:
        if (name in was) != (name in now):
            opens = name in now
            yield Minor(1 if opens else -1, f"{host} {'accepts' if opens else 'refuses'} {name}")
