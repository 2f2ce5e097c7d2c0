"""gh-aw-firewall (awf): a list of domains, a ruleset (YAML) or a configuration (JSON or YAML).

A plain name includes everything below it there, so it becomes `.name`; `*.name` means below it.
`http://` and `https://` in front restrict the scheme. A wildcard inside a label cannot be said
here: an allowed one is dropped, a blocked one is widened to all that lies below its fixed end.
Source: github/gh-aw-firewall, src/domain-patterns.ts, domain-utils.ts, rules.ts and the
configuration schema, August 2026.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from palyra_egress.destination.address_class import parse_address
from palyra_egress.destination.hostpattern import PatternRefused
from palyra_egress.policy.importers.draft import (
    BOTH_SCHEMES,
    TRANSLATED,
    Draft,
    DraftDeny,
    DraftRule,
    Fate,
    ImportRefused,
    KeyFate,
    Value,
    items_of,
    known_mapping,
    mapping_of,
    only_profile,
    quoted,
    start_draft,
    text_of,
    texts_of,
)
from palyra_egress.policy.importers.host_patterns import (
    BELOW,
    EXACT,
    NAME_AND_BELOW,
    our_pattern,
    widest_suffix,
)
from palyra_egress.request import Scheme

_RUNTIME: Final = KeyFate(Fate.LEFT_OUT, "belongs to the containers, not to a policy")
TOP_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        "$schema": KeyFate(Fate.LEFT_OUT, "the schema of the other format"),
        "network": TRANSLATED,
        **dict.fromkeys(
            (
                "filesystem",
                "container",
                "cloudHypervisor",
                "chroot",
                "dind",
                "environment",
                "logging",
                "platform",
                "runner",
                "enclaves",
            ),
            _RUNTIME,
        ),
        "apiProxy": KeyFate(Fate.REFUSED, "the model gateway and the hosts it opens"),
        "rateLimiting": KeyFate(Fate.REFUSED, "limits of the model gateway"),
        "security": KeyFate(Fate.REFUSED, "data-loss checks and access to the machine itself"),
    }
)
NETWORK_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        "allowDomains": TRANSLATED,
        "blockDomains": TRANSLATED,
        "dnsServers": _RUNTIME,
        "isolation": _RUNTIME,
        "topologyAttach": _RUNTIME,
        "upstreamProxy": KeyFate(Fate.REFUSED, "no proxy is chained here"),
    }
)
RULESET_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    dict.fromkeys(("version", "rules"), TRANSLATED)
)
RULE_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    dict.fromkeys(("domain", "subdomains"), TRANSLATED)
)


def _split_scheme(text: str) -> tuple[str, tuple[Scheme, ...]]:
    bare = text.strip()
    for scheme in BOTH_SCHEMES:
        if bare.startswith(f"{scheme}://"):
            return bare.removeprefix(f"{scheme}://").removesuffix("/"), (scheme,)
    return bare.removesuffix("/"), BOTH_SCHEMES


def _pattern(domain: str, prefix: str = NAME_AND_BELOW) -> str:
    if parse_address(domain) is not None:
        return our_pattern(domain, EXACT)
    if domain.startswith("*."):
        return our_pattern(domain[2:], BELOW)
    return our_pattern(domain.removeprefix("."), prefix)


def _add_allowed(draft: Draft, profile: str, entries: Iterable[tuple[str, str, str]]) -> None:
    """Entries are (place, text, prefix of a plain name)."""
    by_schemes: dict[tuple[Scheme, ...], list[str]] = {}
    for place, text, prefix in entries:
        domain, schemes = _split_scheme(text)
        try:
            by_schemes.setdefault(schemes, []).append(_pattern(domain, prefix))
        except PatternRefused as error:
            draft.drop(place, f"{quoted(text)}: {error.detail}")
    for schemes, patterns in by_schemes.items():
        if patterns:
            rule_id = draft.new_id("allowed" if len(schemes) > 1 else f"allowed-{schemes[0]}")
            hosts = tuple(dict.fromkeys(patterns))
            draft.add_rule(DraftRule(rule_id, hosts, schemes=schemes), profile)


def _add_blocked(draft: Draft, value: Value) -> None:
    patterns: list[str] = []
    for place, text in texts_of(value, "network.blockDomains"):
        domain, schemes = _split_scheme(text)
        try:
            inside = "*" in domain.removeprefix("*.")
            pattern = widest_suffix(domain) if inside else _pattern(domain)
        except PatternRefused as error:
            raise ImportRefused(
                f"{place}: {quoted(text)}: {error.detail}; without it more would be allowed"
            ) from error
        if inside or len(schemes) == 1:
            draft.change(f"{place}: {quoted(text)} becomes a deny of {pattern} for every scheme")
        patterns.append(pattern)
    if patterns:
        draft.deny.append(DraftDeny(draft.new_id("blocked"), tuple(dict.fromkeys(patterns))))


def _from_lines(text: str) -> list[tuple[str, str, str]]:
    return [
        (f"line {number}", part, NAME_AND_BELOW)
        for number, line in enumerate(text.splitlines(), start=1)
        for part in line.partition("#")[0].split(",")
        if part.strip()
    ]


def _from_ruleset(document: dict[str, Value], draft: Draft) -> list[tuple[str, str, str]]:
    draft.has_only_known_keys(document, "", RULESET_KEYS)
    if document.get("version") != 1:
        raise ImportRefused("version is not 1")
    entries = []
    for place, item in items_of(document.get("rules"), "rules"):
        rule = mapping_of(item, place)
        if not draft.has_only_known_keys(rule, place, RULE_KEYS):
            draft.drop(place, "the rule is left out: an unknown key may restrict it")
            continue
        below = rule.get("subdomains", True)
        if not isinstance(below, bool):
            raise ImportRefused(f"{place}.subdomains is not true or false")
        domain = text_of(rule.get("domain"), f"{place}.domain")
        entries.append((place, domain, NAME_AND_BELOW if below else EXACT))
    return entries


def translate(value: Value, profile: str | None) -> Draft:
    """The draft of one list (given as its text), ruleset or configuration, as one profile."""
    draft = start_draft("awf")
    name = only_profile(draft, profile)
    if isinstance(value, str):
        _add_allowed(draft, name, _from_lines(value))
        return draft
    document = mapping_of(value, "the file")
    if "rules" in document:
        _add_allowed(draft, name, _from_ruleset(document, draft))
        return draft
    missing = "the file has neither network settings nor rules"
    known_mapping(draft, document, "", TOP_KEYS, "network", missing)
    network = mapping_of(document["network"], "network")
    draft.has_only_known_keys(network, "network", NETWORK_KEYS)
    allowed = texts_of(network.get("allowDomains"), "network.allowDomains")
    _add_allowed(draft, name, [(place, text, NAME_AND_BELOW) for place, text in allowed])
    _add_blocked(draft, network.get("blockDomains"))
    return draft
