"""smokescreen's egress ACL (YAML, `version: v1`): one service is one profile.

`services` and `default` hold an action and `allowed_domains`; `global_allow_list` belongs to every
service. `*.name` means below the name there and here. Carried otherwise: the default service is the
profile `default`, which a lease must name; a service's list may override the global deny list
there, never here. `report` becomes observe mode only where every imported service reports and no
global deny list exists (that list also holds in report mode, and our observe mode would not keep
it). `open` is not carried. Source: stripe/smokescreen, pkg/smokescreen/acl/v1, July 2026.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from palyra_egress.destination.hostpattern import HostIndex, PatternRefused, parse_pattern
from palyra_egress.policy.importers.draft import (
    BOTH_SCHEMES,
    EVERY_PORT_CHANGE,
    TRANSLATED,
    Draft,
    DraftDeny,
    DraftRule,
    Fate,
    ImportRefused,
    KeyFate,
    Value,
    identifier,
    items_of,
    known_mapping,
    mapping_of,
    quoted,
    start_draft,
    text_of,
    texts_of,
)
from palyra_egress.policy.importers.host_patterns import BELOW, EXACT, our_pattern

TOP_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    dict.fromkeys(
        ("version", "services", "default", "global_allow_list", "global_deny_list"), TRANSLATED
    )
)
SERVICE_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        **dict.fromkeys(("name", "project", "action", "allowed_domains"), TRANSLATED),
        "mitm_domains": KeyFate(Fate.REFUSED, "headers added per domain"),
        "allowed_external_proxies": KeyFate(
            Fate.LEFT_OUT, "no proxy is chained here, so every request for one is refused"
        ),
    }
)
DEFAULT_PROFILE: Final = "default"
_ACTIONS: Final = frozenset({"enforce", "report", "open"})


def _pattern(text: str) -> str:
    if text.startswith("*."):
        return our_pattern(text[2:], BELOW)
    return our_pattern(text, EXACT)


def _allowed(value: Value, where: str, draft: Draft) -> list[str]:
    patterns: list[str] = []
    for place, text in texts_of(value, where):
        try:
            patterns.append(_pattern(text))
        except PatternRefused as error:
            draft.drop(place, f"{quoted(text)}: {error.detail}")
    return list(dict.fromkeys(patterns))


def _denied(value: Value) -> list[str]:
    patterns: list[str] = []
    for place, text in texts_of(value, "global_deny_list"):
        try:
            patterns.append(_pattern(text))
        except PatternRefused as error:
            raise ImportRefused(
                f"{place}: {quoted(text)}: {error.detail}; without it more would be allowed"
            ) from error
    return list(dict.fromkeys(patterns))


def _services(document: dict[str, Value], profile: str | None) -> list[tuple[str, str, Value]]:
    """(profile, place, service) of everything to import."""
    found = [
        (text_of(mapping_of(service, place).get("name"), f"{place}.name"), place, service)
        for place, service in items_of(document.get("services"), "services")
    ]
    if document.get("default") is not None:
        if any(name == DEFAULT_PROFILE for name, _, _ in found):
            raise ImportRefused("a service is called default beside the default service")
        found.append((DEFAULT_PROFILE, "default", document["default"]))
    names = [identifier(name) for name, _, _ in found]
    if len(set(names)) != len(names):
        raise ImportRefused("two services have the same name, or names that become the same")
    if profile is None:
        return found
    wanted = [row for row in found if row[0] == profile]
    if not wanted:
        raise ImportRefused(f"no service is called {quoted(profile)}")
    return wanted


def _action(service: dict[str, Value], place: str) -> str:
    action = text_of(service.get("action"), f"{place}.action")
    if action not in _ACTIONS:
        raise ImportRefused(f"{place}.action: {quoted(action)} is no action of this format")
    return action


def _note_actions(draft: Draft, actions: list[tuple[str, str]]) -> None:
    """Observe mode where it is exactly what the file says; otherwise everything is enforced."""
    reports = [place for place, action in actions if action == "report"]
    if reports and len(reports) == len(actions) and not draft.deny:
        draft.observes = True
        return
    why = (
        "a deny list holds in report mode there and would not hold in observe mode here"
        if draft.deny
        else "observing is for a whole file; import this service alone with --profile"
    )
    for place in reports:
        draft.drop(f"{place}.action", f"report ({why}); what is not listed is refused")
    for place, action in actions:
        if action == "open":
            draft.drop(f"{place}.action", "open allows every host; only listed hosts are allowed")


def _note_overridden(draft: Draft, patterns: list[str], denied: list[str], place: str) -> None:
    """Says which entries lie under the deny list, as far as a first host of each can tell."""
    index: HostIndex[str] = HostIndex()
    for text in denied:
        index.slot(parse_pattern(text), text)
    for text in patterns:
        pattern = parse_pattern(text)
        if pattern.addresses is not None:
            under = index.find_address(pattern.addresses.version, pattern.addresses.low)
        else:
            under = index.find_name(text.replace("*", "x", 1))
        if under:
            draft.change(f"{place}: {text} overrides the deny list there; here deny wins")


def translate(value: Value, profile: str | None) -> Draft:
    """The draft of one ACL; with `profile` only of the service of that name."""
    draft = start_draft("smokescreen", EVERY_PORT_CHANGE)
    document = known_mapping(draft, value, "", TOP_KEYS, "version", "version is not v1")
    if document["version"] != "v1":
        raise ImportRefused("version is not v1")
    if not isinstance(document.get("services"), list):
        raise ImportRefused("services is not a list")
    denied = _denied(document.get("global_deny_list"))
    if denied:
        draft.deny.append(DraftDeny(draft.new_id("global-deny"), tuple(denied)))
    everyone = _allowed(document.get("global_allow_list"), "global_allow_list", draft)
    shared = draft.new_id("global-allow") if everyone else None
    if shared is not None:
        draft.rules.append(DraftRule(shared, tuple(everyone), schemes=BOTH_SCHEMES))
    actions: list[tuple[str, str]] = []
    for name, place, given in _services(document, profile):
        service = mapping_of(given, place)
        actions.append((place, _action(service, place)))
        name_here = identifier(name)
        if name_here != name:
            draft.change(f"{place}.name: {quoted(name)} becomes the profile {name_here}")
        rule_ids = draft.profiles.setdefault(name_here, [])
        known = draft.has_only_known_keys(service, place, SERVICE_KEYS)
        patterns = _allowed(service.get("allowed_domains"), f"{place}.allowed_domains", draft)
        if patterns and known:
            owner = service.get("project")
            draft.add_rule(
                DraftRule(
                    draft.new_id(name),
                    tuple(patterns),
                    schemes=BOTH_SCHEMES,
                    owner=owner if isinstance(owner, str) else None,
                ),
                name_here,
            )
            _note_overridden(draft, patterns, denied, place)
        if shared is not None:
            rule_ids.append(shared)
    if DEFAULT_PROFILE in draft.profiles:
        draft.change("unknown roles get the default service there; here a lease names `default`")
    _note_actions(draft, actions)
    return draft
