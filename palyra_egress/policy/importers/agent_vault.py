"""agent-vault's services file (YAML): one service is one rule, with its credential if it has one.

A service has a host (inline path and port allowed), path, port, `enabled` and auth. `*.name` is one
label deep there and any depth here, so it is not imported. In paths `*` crosses slashes there and
is one segment here, except at the end. A disabled service keeps others from serving its host there,
so it becomes a deny rule. Hosts that no service names are forwarded there by default and refused
here. Source: Infisical/agent-vault, internal/broker, August 2026.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from palyra_egress.destination.hostpattern import PatternRefused, parse_pattern
from palyra_egress.policy.importers.agent_vault_auth import credentials_of
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
    items_of,
    known_mapping,
    mapping_of,
    only_profile,
    port_of,
    quoted,
    start_draft,
    text_of,
)
from palyra_egress.policy.importers.host_patterns import BELOW, EXACT, our_pattern, split_port
from palyra_egress.policy.importers.path_patterns import below_only
from palyra_egress.policy.paths import PathRefused
from palyra_egress.policy.schema import DEFAULT_SCHEMES

TOP_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {"services": TRANSLATED, "vault": TRANSLATED}
)
SERVICE_KEYS: Final[Mapping[str, KeyFate]] = MappingProxyType(
    {
        **dict.fromkeys(("name", "host", "path", "port", "enabled", "auth"), TRANSLATED),
        "substitutions": KeyFate(Fate.REFUSED, "placeholders stand in bound headers only"),
    }
)


def _split(service: dict[str, Value], where: str) -> tuple[str, int | None, str]:
    """(host, port, path) of a service, inline or in keys of their own; an empty path is any."""
    host, slash, inline = text_of(service.get("host"), f"{where}.host").strip().partition("/")
    host, port = split_port(host)
    path = text_of(service.get("path", ""), f"{where}.path") or (f"/{inline}" if slash else "")
    if service.get("port") is not None:
        port = port_of(service.get("port"), f"{where}.port")
    return host, port, path


def _add_disabled(draft: Draft, service: dict[str, Value], where: str) -> None:
    host, port, path = _split(service, where)
    try:
        pattern = our_pattern(host[2:], BELOW) if host.startswith("*.") else our_pattern(host)
    except PatternRefused as error:
        raise ImportRefused(
            f"{where}: {quoted(host)}: {error.detail}; without it more would be allowed"
        ) from error
    draft.deny.append(DraftDeny(draft.new_id(f"disabled-{host}"), (pattern,)))
    if path or port is not None or host.startswith("*."):
        draft.change(f"{where}: disabled there in part, {pattern} is denied as a whole here")


def _add_service(
    draft: Draft, profile: str, service: dict[str, Value], vault: Value, where: str
) -> None:
    host, port, path = _split(service, where)
    if host.startswith("*."):
        draft.drop(where, f"{quoted(host)} is one label deep there; *.name is any depth here")
        return
    try:
        pattern = our_pattern(host, EXACT)
        paths = below_only(path) if path else None
    except (PatternRefused, PathRefused) as error:
        draft.drop(where, f"{quoted(host + path)}: {error.detail}")
        return
    if parse_pattern(pattern).addresses is not None:
        draft.drop(where, f"{quoted(host)}: an IP address is no host of this format")
        return
    if "*" in path[:-1]:
        draft.change(f"{where}.path: * crosses slashes there and is one segment here")
    name = service.get("name")
    credentials = credentials_of(draft, service, vault, where)
    draft.add_rule(
        DraftRule(
            draft.new_id(name if isinstance(name, str) and name else host),
            (pattern,),
            schemes=DEFAULT_SCHEMES if credentials else BOTH_SCHEMES,
            ports=None if port is None else (port,),
            paths=paths,
            credentials=credentials,
        ),
        profile,
    )


def translate(value: Value, profile: str | None) -> Draft:
    """The draft of one services file, as one profile."""
    unnamed = "hosts that no service names are refused; agent-vault may forward them"
    draft = start_draft("agent-vault", PORTS_CHANGE, unnamed)
    name = only_profile(draft, profile)
    missing = "the file has no services"
    document = known_mapping(draft, value, "", TOP_KEYS, "services", missing)
    for place, item in items_of(document["services"], "services"):
        service = mapping_of(item, place)
        known = draft.has_only_known_keys(service, place, SERVICE_KEYS)
        enabled = service.get("enabled", True)
        if not isinstance(enabled, bool):
            raise ImportRefused(f"{place}.enabled is not true or false")
        if not enabled:
            _add_disabled(draft, service, place)
        elif known:
            _add_service(draft, name, service, document.get("vault"), place)
        else:
            draft.drop(place, "the service is left out: an unknown key may restrict it")
    return draft
