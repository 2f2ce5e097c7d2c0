"""iron-proxy's configuration (YAML): the `allowlist` transform, or the allowlist alone.

`domains`, `cidrs` and `rules` (host or cidr, methods, paths). `*.name` includes the name itself
there, so it becomes `.name`; a CIDR matches IP literals in it, private ones too, so its private
part becomes `private`. `warn` becomes observe mode unless an explicit `upstream_deny_cidrs` list
exists, which holds in warn mode too. Several allowlists must all agree there; that cannot be said
here. Source: ironsh/iron-proxy, internal/config, internal/transform/allowlist and
internal/hostmatch, June 2026.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from palyra_egress.destination.address_class import parse_range, refuse_private_range
from palyra_egress.destination.hostpattern import PatternRefused, parse_pattern
from palyra_egress.policy.importers.draft import (
    BOTH_SCHEMES,
    EVERY_PORT_CHANGE,
    PLAIN_METHODS,
    TRANSLATED,
    Draft,
    DraftDeny,
    DraftRule,
    Fate,
    ImportRefused,
    KeyFate,
    Value,
    boolean_of,
    items_of,
    mapping_of,
    only_profile,
    quoted,
    start_draft,
    text_of,
    texts_of,
)
from palyra_egress.policy.importers.host_patterns import EXACT, NAME_AND_BELOW, our_pattern
from palyra_egress.policy.importers.path_patterns import prefix_with_base
from palyra_egress.policy.paths import PathRefused
from palyra_egress.policy.schema import KNOWN_METHODS

_PROCESS: Final = KeyFate(Fate.LEFT_OUT, "belongs to the proxy process, not to a policy")
_OTHER_PROTOCOL: Final = KeyFate(Fate.REFUSED, "this proxy carries HTTP only")
TOP_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        "transforms": TRANSLATED,
        "proxy": TRANSLATED,
        "tls": TRANSLATED,
        **dict.fromkeys(("dns", "metrics", "management", "control_plane", "log"), _PROCESS),
        **dict.fromkeys(("mcp", "mcp_gateway", "postgres"), _OTHER_PROTOCOL),
    }
)
PROXY_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        "upstream_deny_cidrs": TRANSLATED,
        **dict.fromkeys(
            (
                "http_listen",
                "https_listen",
                "tunnel_listen",
                "max_request_body_bytes",
                "max_response_body_bytes",
                "upstream_response_header_timeout",
            ),
            _PROCESS,
        ),
        "upstream_proxy": KeyFate(Fate.REFUSED, "no proxy is chained here"),
    }
)
TLS_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        "mode": TRANSLATED,
        **dict.fromkeys(
            ("ca_cert", "ca_key", "cert_cache_size", "leaf_cert_expiry_hours"), _PROCESS
        ),
    }
)
ALLOWLIST_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    dict.fromkeys(("domains", "cidrs", "rules", "warn"), TRANSLATED)
)
RULE_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    dict.fromkeys(("host", "cidr", "methods", "paths"), TRANSLATED)
)


def _host(text: str) -> str:
    if text.startswith("*."):
        return our_pattern(text[2:], NAME_AND_BELOW)
    return our_pattern(text, EXACT)


def _private_of(cidr: str) -> tuple[str, ...]:
    return (cidr,) if refuse_private_range(cidr) is None else ()


def _cidr_rule(rule_id: str, cidr: str, draft: Draft, where: str) -> DraftRule:
    """A rule for IP literals in one CIDR; raises `PatternRefused`."""
    if "/" not in cidr or parse_range(cidr) is None:
        raise PatternRefused("not a CIDR without host bits", "a CIDR such as 192.0.2.0/24")
    private = _private_of(cidr)
    if not private:
        draft.change(f"{where}: addresses of {cidr} that are not public stay refused")
    return DraftRule(rule_id, (parse_pattern(cidr).text,), schemes=BOTH_SCHEMES, private=private)


def _methods(value: Value, where: str, draft: Draft) -> tuple[str, ...]:
    """None or an empty list is every method; the empty tuple means that none was carried."""
    given = texts_of(value, where)
    if not given or [text for _, text in given] == ["*"]:
        return PLAIN_METHODS
    methods: list[str] = []
    for place, text in given:
        if text.upper() in KNOWN_METHODS:
            methods.append(text.upper())
        else:
            draft.drop(place, f"the method {quoted(text)} cannot be allowed")
    return tuple(dict.fromkeys(methods))


def _paths(value: Value, where: str, draft: Draft) -> tuple[str, ...] | None:
    """None is every path; the empty tuple means that none was carried."""
    given = texts_of(value, where)
    if not given:
        return None
    paths: list[str] = []
    for place, text in given:
        try:
            paths.extend(prefix_with_base(text))
        except PathRefused as error:
            draft.drop(place, f"{quoted(text)}: {error.detail}")
    return tuple(dict.fromkeys(paths))


def _add_rule(draft: Draft, profile: str, value: Value, where: str) -> None:
    given = mapping_of(value, where)
    known = draft.has_only_known_keys(given, where, RULE_KEYS)
    if ("host" in given) == ("cidr" in given):
        raise ImportRefused(f"{where} needs a host or a cidr, and not both")
    named = text_of(given.get("host", given.get("cidr")), where)
    try:
        if "host" in given:
            rule = DraftRule("", (_host(named),), schemes=BOTH_SCHEMES)
        else:
            rule = _cidr_rule("", named, draft, where)
    except PatternRefused as error:
        draft.drop(where, f"{quoted(named)}: {error.detail}")
        return
    methods = _methods(given.get("methods"), f"{where}.methods", draft)
    paths = _paths(given.get("paths"), f"{where}.paths", draft)
    if not known or not methods or paths == ():
        draft.drop(where, "the rule is left out: what is left of it would mean something else")
        return
    draft.add_rule(
        DraftRule(
            draft.new_id(named.removeprefix("*.")),
            rule.hosts,
            methods,
            rule.schemes,
            paths=paths,
            private=rule.private,
        ),
        profile,
    )


def _add_allowlist(draft: Draft, profile: str, config: dict[str, Value], where: str) -> None:
    draft.has_only_known_keys(config, where, ALLOWLIST_KEYS)
    hosts: list[str] = []
    for place, text in texts_of(config.get("domains"), f"{where}domains"):
        try:
            hosts.append(_host(text))
        except PatternRefused as error:
            draft.drop(place, f"{quoted(text)}: {error.detail}")
    if hosts:
        patterns = tuple(dict.fromkeys(hosts))
        draft.add_rule(DraftRule(draft.new_id("domains"), patterns, schemes=BOTH_SCHEMES), profile)
    for place, text in texts_of(config.get("cidrs"), f"{where}cidrs"):
        try:
            rule = _cidr_rule(draft.new_id(f"cidr-{text}"), text, draft, place)
        except PatternRefused as error:
            draft.drop(place, f"{quoted(text)}: {error.detail}")
        else:
            draft.add_rule(rule, profile)
    for place, item in items_of(config.get("rules"), f"{where}rules"):
        _add_rule(draft, profile, item, place)


def _allowlists(document: dict[str, Value], draft: Draft) -> list[tuple[str, dict[str, Value]]]:
    """(place, config) of every allowlist; other transforms are noted."""
    if "transforms" not in document and set(document) & set(ALLOWLIST_KEYS):
        return [("", document)]
    draft.has_only_known_keys(document, "", TOP_KEYS)
    found: list[tuple[str, dict[str, Value]]] = []
    for place, item in items_of(document.get("transforms"), "transforms"):
        transform = mapping_of(item, place)
        name = text_of(transform.get("name"), f"{place}.name")
        if name == "allowlist":
            found.append((f"{place}.", mapping_of(transform.get("config"), f"{place}.config")))
        elif name == "secrets":
            why = "has rules of its own there; here a rule names its `credentials`"
            draft.drop(place, f"the transform {quoted(name)} {why}")
        else:
            draft.drop(place, f"the transform {quoted(name)} may refuse or change requests")
    return found


def _denied(document: dict[str, Value], draft: Draft) -> None:
    proxy = mapping_of(document.get("proxy", {}), "proxy")
    draft.has_only_known_keys(proxy, "proxy", PROXY_KEYS)
    tls = mapping_of(document.get("tls", {}), "tls")
    draft.has_only_known_keys(tls, "tls", TLS_KEYS)
    if tls.get("mode") == "sni-only":
        draft.change("tls.mode: tunnels are never passed through; each request is judged")
    cidrs: list[str] = []
    for place, text in texts_of(proxy.get("upstream_deny_cidrs"), "proxy.upstream_deny_cidrs"):
        if parse_range(text) is None:
            raise ImportRefused(f"{place}: {quoted(text)} is not a CIDR without host bits")
        cidrs.append(parse_pattern(text).text)
    if cidrs:
        draft.deny.append(DraftDeny(draft.new_id("upstream-deny"), tuple(dict.fromkeys(cidrs))))


def translate(value: Value, profile: str | None) -> Draft:
    """The draft of one configuration, as one profile."""
    document = mapping_of(value, "the file")
    private = "names that resolve to private addresses stay refused"
    draft = start_draft("iron-proxy", EVERY_PORT_CHANGE, private)
    name = only_profile(draft, profile)
    allowlists = _allowlists(document, draft)
    if not allowlists or allowlists[0][0]:
        _denied(document, draft)
    if len(allowlists) > 1:
        raise ImportRefused("several allowlists that must all agree cannot be said in one policy")
    if not allowlists:
        draft.drop("transforms", "no allowlist: every host passes there; none is allowed here")
    for place, config in allowlists:
        _add_allowlist(draft, name, config, place)
        if boolean_of(config.get("warn"), f"{place}warn"):
            draft.observes = not draft.deny
            if draft.deny:
                draft.drop(
                    f"{place}warn",
                    "upstream_deny_cidrs holds in warn mode there and would not in observe mode",
                )
    return draft
