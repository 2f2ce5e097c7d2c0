"""Which rule comes nearest to a request whose host no rule of its profile names. Pure.

First a rule of another profile that does name the host; then one whose host is spelt almost so;
then one for a neighbour under the same name of two labels or more. Of several the first in the
order of the file. Looks at no more than `MOST_HOSTS` patterns: it is for a person who reads.
"""

import difflib
from collections.abc import Iterator
from typing import Final, NamedTuple

from palyra_egress.policy.schema import PolicySpec, RuleSpec
from palyra_egress.request import CanonicalHost

MOST_HOSTS: Final = 5_000
_ALIKE: Final = 0.8


class Near(NamedTuple):
    """A rule, and in words why it is near."""

    rule: RuleSpec
    why: str


def nearest_rule(spec: PolicySpec, profile: str, host: CanonicalHost) -> Near | None:
    """The nearest rule for a host that no rule of the profile names."""
    own = _rule_ids(spec, profile)
    for rule in spec.rules:
        if rule.rule_id not in own and any(_names(text, host) for text in _hosts(rule)):
            return Near(rule, f"names this host, but is not in the profile {profile}")
    named = dict(_named(spec, own))
    alike = difflib.get_close_matches(host, named, 1, _ALIKE)
    if alike:
        return Near(named[alike[0]], f"names {alike[0]}: did you mean that host?")
    above = ".".join(host.split(".")[-2:])
    for name, rule in named.items():
        if "." in above and (name == above or name.endswith(f".{above}")):
            return Near(rule, f"names {name}, under the same {above}")
    return None


def _rule_ids(spec: PolicySpec, profile: str) -> frozenset[str]:
    found = next((one for one in spec.profiles if one.name == profile), None)
    return frozenset() if found is None else frozenset(rule_id for rule_id, _ in found.rule_ids)


def _hosts(rule: RuleSpec) -> Iterator[str]:
    return (pattern.text.lower() for pattern in rule.hosts)


def _named(spec: PolicySpec, own: frozenset[str]) -> Iterator[tuple[str, RuleSpec]]:
    """Host names of the profile's rules, without the sign of a wildcard, each once."""
    count = 0
    for rule in spec.rules:
        if rule.rule_id not in own:
            continue
        for text in _hosts(rule):
            count += 1
            if count > MOST_HOSTS:
                return
            yield text.removeprefix("*").removeprefix("."), rule


def _names(text: str, host: str) -> bool:
    if text.startswith("*."):
        return host.endswith(text[1:])
    return host == text.removeprefix(".") or (text.startswith(".") and host.endswith(text))
