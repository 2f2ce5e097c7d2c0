"""sandbox-runtime's settings (JSON): `network.allowedDomains` and `network.deniedDomains`.

`*.name` means below the name there and here; an entry may end in `:port`. A deny entry with a port
becomes nothing where no rule opens that port, and a deny of the whole host where one does; `*`
denies everything, `*:80` takes plain http away. Source: anthropic-experimental/sandbox-runtime
and its continuation, src/sandbox/sandbox-config.ts and domain-pattern.ts, 2026.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from palyra_egress.destination.hostpattern import PatternRefused
from palyra_egress.policy.importers.draft import (
    BOTH_SCHEMES,
    PORTS_CHANGE,
    TRANSLATED,
    Draft,
    DraftDeny,
    DraftRule,
    Fate,
    ImportRefused,
    KeyFate,
    Value,
    boolean_of,
    known_mapping,
    mapping_of,
    only_profile,
    quoted,
    start_draft,
    texts_of,
)
from palyra_egress.policy.importers.host_patterns import BELOW, EXACT, our_pattern, split_port
from palyra_egress.policy.schema import SCHEME_PORT

_SANDBOX: Final = KeyFate(Fate.LEFT_OUT, "belongs to the sandbox, not to a policy")
_PROCESS: Final = KeyFate(Fate.LEFT_OUT, "belongs to the proxy process, not to a policy")
TOP_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        "network": TRANSLATED,
        **dict.fromkeys(
            (
                "filesystem",
                "ignoreViolations",
                "enableWeakerNestedSandbox",
                "enableWeakerNetworkIsolation",
                "ripgrep",
                "git",
                "mandatoryDenySearchDepth",
                "allowPty",
                "seccomp",
            ),
            _SANDBOX,
        ),
        "credentials": KeyFate(Fate.REFUSED, "credentials are not injected by this version"),
    }
)
NETWORK_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "allowedDomains",
                "deniedDomains",
                "deniedDomainReasons",
                "strictAllowlist",
                "allowAllDomains",
            ),
            TRANSLATED,
        ),
        **dict.fromkeys(
            (
                "allowUnixSockets",
                "allowAllUnixSockets",
                "allowLocalBinding",
                "allowMachLookup",
                "httpProxyPort",
                "socksProxyPort",
            ),
            _SANDBOX,
        ),
        "mitmProxy": KeyFate(Fate.REFUSED, "no proxy is chained here"),
        "parentProxy": KeyFate(Fate.REFUSED, "no proxy is chained here"),
        "filterRequest": KeyFate(Fate.REFUSED, "a program that may refuse requests"),
        "tlsTerminate": _PROCESS,
    }
)
_DEFAULT_PORTS: Final = frozenset(SCHEME_PORT.values())


def _pattern(host: str) -> str:
    if host.startswith("*."):
        return our_pattern(host[2:], BELOW)
    return our_pattern(host, EXACT)


def _opened(rule: DraftRule) -> frozenset[int]:
    return frozenset(rule.ports) if rule.ports is not None else _DEFAULT_PORTS


def _add_allowed(draft: Draft, profile: str, value: Value) -> None:
    by_port: dict[int | None, list[str]] = {}
    for place, text in texts_of(value, "network.allowedDomains"):
        host, port = split_port(text)
        try:
            by_port.setdefault(port, []).append(_pattern(host))
        except PatternRefused as error:
            draft.drop(place, f"{quoted(text)}: {error.detail}")
    for port, patterns in by_port.items():
        if patterns:
            draft.add_rule(
                DraftRule(
                    draft.new_id("allowed" if port is None else f"allowed-{port}"),
                    tuple(dict.fromkeys(patterns)),
                    schemes=BOTH_SCHEMES,
                    ports=None if port is None else (port,),
                ),
                profile,
            )


def _without_port(rule: DraftRule, port: int) -> DraftRule | None:
    """The rule where that port is denied for every host; None if nothing is left of it."""
    if port not in _opened(rule):
        return rule
    left = tuple(scheme for scheme in rule.schemes if SCHEME_PORT[scheme] != port)
    return replace(rule, schemes=left) if rule.ports is None and left else None


def _deny_everywhere(draft: Draft, port: int | None, place: str) -> None:
    """`*` or `*:port`: no rule may open it."""
    kept = [] if port is None else [_without_port(rule, port) for rule in draft.rules]
    draft.rules = [rule for rule in kept if rule is not None]
    ids = {rule.rule_id for rule in draft.rules}
    for rule_ids in draft.profiles.values():
        rule_ids[:] = [rule_id for rule_id in rule_ids if rule_id in ids]
    draft.change(f"{place}: carried by opening {'nothing' if port is None else 'no such port'}")


def _add_denied(draft: Draft, network: dict[str, Value]) -> None:
    reasons = mapping_of(network.get("deniedDomainReasons", {}), "network.deniedDomainReasons")
    for place, text in texts_of(network.get("deniedDomains"), "network.deniedDomains"):
        host, port = split_port(text)
        if host == "*":
            _deny_everywhere(draft, port, place)
            continue
        if port is not None and not any(port in _opened(rule) for rule in draft.rules):
            draft.change(f"{place}: {quoted(text)} needs no rule: no rule opens that port")
            continue
        try:
            pattern = _pattern(host)
        except PatternRefused as error:
            raise ImportRefused(
                f"{place}: {quoted(text)}: {error.detail}; without it more would be allowed"
            ) from error
        if port is not None:
            draft.change(f"{place}: {quoted(text)} is denied on every port")
        reason = reasons.get(text)
        draft.deny.append(
            DraftDeny(
                draft.new_id(f"denied-{host}"),
                (pattern,),
                reason if isinstance(reason, str) else None,
            )
        )


def translate(value: Value, profile: str | None) -> Draft:
    """The draft of one settings file, as one profile."""
    private = "hosts that resolve to private addresses stay refused"
    others = "protocols other than HTTP are not carried"
    draft = start_draft("sandbox-runtime", PORTS_CHANGE, private, others)
    name = only_profile(draft, profile)
    missing = "the file has no network settings"
    document = known_mapping(draft, value, "", TOP_KEYS, "network", missing)
    network = mapping_of(document["network"], "network")
    draft.has_only_known_keys(network, "network", NETWORK_KEYS)
    if boolean_of(network.get("allowAllDomains"), "network.allowAllDomains"):
        draft.drop("network.allowAllDomains", "only listed hosts are allowed here")
    _add_allowed(draft, name, network.get("allowedDomains"))
    _add_denied(draft, network)
    return draft
