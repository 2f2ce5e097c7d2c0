"""The least rules that would allow what was refused, for a person to judge.

Input: entries of the audit log and the policy in force. Output: suggestions (rules for one profile,
host, scheme and port; methods share a rule only where they need the same paths) and how many
refused requests are left out, by why. Only refusals that an allow rule could mend are looked at,
and only those the given policy still refuses. Never suggested: IP literals, single labels, names
that resolved to anything but public addresses, hosts that a deny rule names, paths that cannot be
written exactly. Hosts stay exact; paths become wider only by `path_groups`. Nothing is written
anywhere, and owner and reason are left to the person who will answer for the rule.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from palyra_egress.destination.address_class import AddressClass, classify
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.path_groups import can_be_written, group_paths
from palyra_egress.policy.paths import read_path
from palyra_egress.policy.recorded import (
    Answer,
    NotJudgeable,
    Recorded,
    judge_again,
    read_recorded,
)
from palyra_egress.policy.schema import (
    DEFAULT_METHODS,
    KNOWN_METHODS,
    SCHEME_PORT,
    SERVICE_PORTS,
)
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, RequestKind, Scheme

MENDABLE: Final = frozenset(
    {
        Reason.HOST_NOT_ALLOWED,
        Reason.PORT_NOT_ALLOWED,
        Reason.SCHEME_NOT_ALLOWED,
        Reason.METHOD_NOT_ALLOWED,
        Reason.PATH_NOT_ALLOWED,
        Reason.UPGRADE_NOT_ALLOWED,
    }
)
_NOT_IN_ID: Final = re.compile(r"[^a-z0-9.-]+")


class LeftOut(StrEnum):
    """Why a refused request is no reason for a rule."""

    ADDRESS = "the host is an IP address"
    SINGLE_LABEL = "the host is a single label"
    NOT_PUBLIC = "the name resolved to an address that is not public"
    DENIED = "a deny rule names the host"
    OTHER_REASON = "no allow rule mends this refusal"
    PATH = "the path cannot be written exactly in a rule"
    METHOD = "no rule may name the method"
    NOT_JUDGED = "the entry cannot be judged again"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One rule. Without methods only CONNECT was refused, and no path was seen."""

    profile: str
    host: str
    scheme: Scheme
    port: int
    websocket: bool
    methods: tuple[str, ...]
    patterns: tuple[str, ...]
    requests: int

    @property
    def content(self) -> tuple[object, ...]:
        """What the rule would allow; profiles that need the same share one rule."""
        return (
            self.host,
            self.scheme,
            self.port,
            self.websocket,
            self.methods,
            self.patterns,
        )


class _Place(NamedTuple):
    profile: str
    host: str
    scheme: Scheme
    port: int
    websocket: bool


@dataclass(frozen=True, slots=True)
class Suggestions:
    rules: tuple[Suggestion, ...]
    left_out: Mapping[LeftOut, int]
    still_allowed: int


def _refuse_host(recorded: Recorded) -> LeftOut | None:
    host = recorded.request.host
    if classify(host).address_class is not AddressClass.UNPARSABLE:
        return LeftOut.ADDRESS
    if "." not in host:
        return LeftOut.SINGLE_LABEL
    classes = {classify(address).address_class for address in recorded.addresses}
    return LeftOut.NOT_PUBLIC if classes - {AddressClass.PUBLIC} else None


def _refuse_request(recorded: Recorded) -> LeftOut | None:
    """Why no suggestion is made of one request, or None."""
    refused = _refuse_host(recorded)
    if refused is not None or recorded.request.kind is RequestKind.CONNECT:
        return refused
    if recorded.request.method not in KNOWN_METHODS:
        return LeftOut.METHOD
    path = read_path(recorded.request.path)
    if path is None or path.decoded_slashes is not None or not can_be_written(path.form):
        return LeftOut.PATH
    return None


@dataclass(slots=True)
class _Asked:
    """What was refused at one place: forms of paths by method, and how often."""

    paths: dict[str, set[str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)

    def add(self, request: EgressRequest) -> None:
        self.requests[request.method] += 1
        path = read_path(request.path)
        if request.kind is RequestKind.REQUEST and path is not None:
            self.paths.setdefault(request.method, set()).add(path.form)


def _rules_for(place: _Place, asked: _Asked) -> Iterator[Suggestion]:
    """One rule for the methods that need the same paths; CONNECT alone where nothing else is."""
    methods: dict[tuple[str, ...], list[str]] = {}
    for method, forms in sorted(asked.paths.items()):
        methods.setdefault(tuple(group_paths(forms)), []).append(method)
    for patterns, names in methods.items():
        requests = sum(asked.requests[name] for name in names)
        yield Suggestion(*place, tuple(names), patterns, requests)
    if not methods:
        yield Suggestion(*place, (), (), asked.requests.total())


def suggest(
    entries: Iterable[Mapping[str, object]], policy: CompiledPolicy, profile: str | None = None
) -> Suggestions:
    """Suggestions for one profile, or for all that were recorded."""
    found: dict[_Place, _Asked] = {}
    left: Counter[LeftOut] = Counter()
    still_allowed = 0
    for entry in entries:
        recorded = read_recorded(entry)
        if isinstance(recorded, NotJudgeable):
            left[LeftOut.NOT_JUDGED] += 1
            continue
        if recorded is None or (profile is not None and recorded.profile != profile):
            continue
        now = judge_again(policy, recorded)
        if now.answer in (Answer.ALLOWED, Answer.UNRESOLVED):
            still_allowed += 1
            continue
        refused = _refuse_request(recorded)
        if now.reason is Reason.HOST_DENIED:
            refused = LeftOut.DENIED
        elif refused is None and now.reason not in MENDABLE:
            refused = LeftOut.OTHER_REASON
        if refused is None:
            asked = recorded.request
            who = recorded.profile
            place = _Place(who, asked.host, asked.scheme, asked.port, asked.websocket)
            found.setdefault(place, _Asked()).add(asked)
        else:
            left[refused] += 1
    rules = [rule for place in sorted(found) for rule in _rules_for(place, found[place])]
    return Suggestions(tuple(rules), dict(left), still_allowed)


def _free_id(rule: Suggestion, taken: set[str]) -> str:
    """An id that no rule of the file and no other suggestion has."""
    port = "" if rule.port == SCHEME_PORT[rule.scheme] else f"-{rule.port}"
    scheme = "" if rule.scheme == "https" else "-http"
    base = _NOT_IN_ID.sub("-", f"suggested-{rule.host}{scheme}{port}")[:56].rstrip("-.")
    number, rule_id = 1, base
    while rule_id in taken:
        number += 1
        rule_id = f"{base}-{number}"
    taken.add(rule_id)
    return rule_id


def _rule_lines(rule_id: str, rules: list[Suggestion]) -> list[str]:
    rule, requests = rules[0], sum(rule.requests for rule in rules)
    lines = [f"  # {requests} refused, for {', '.join(rule.profile for rule in rules)}"]
    if not rule.methods:
        lines.append("  # only CONNECT was seen: methods and paths are not known, narrow them")
    if rule.port in SERVICE_PORTS:
        lines.append(f"  # port {rule.port} belongs to {SERVICE_PORTS[rule.port]}")
    lines += [f"  - id: {rule_id}", f"    hosts: [{rule.host}]"]
    if rule.scheme != "https":
        lines.append(f"    schemes: [{rule.scheme}]")
    if rule.port != SCHEME_PORT[rule.scheme]:
        lines.append(f"    ports: [{rule.port}]")
    lines.append(f"    methods: [{', '.join(rule.methods or DEFAULT_METHODS)}]")
    if rule.patterns:
        lines.append("    paths:")
        lines += [f"      - {_quoted(pattern)}" for pattern in rule.patterns]
    if rule.websocket:
        lines.append("    websocket: true")
    if rule.port in SERVICE_PORTS:
        lines.append("    acknowledge: [service_port]")
    return [*lines, "    # owner: who answers for this rule?", "    # reason: why is it needed?"]


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_yaml(found: Suggestions, taken: Iterable[str]) -> list[str]:
    """Rules to paste below `rules:`, once somebody owns them, and the profiles they are for.

    `taken` are the ids that the file uses already.
    """
    if not found.rules:
        return ["# nothing to suggest"]
    ids = set(taken)
    shared: dict[tuple[object, ...], list[Suggestion]] = {}
    for rule in found.rules:
        shared.setdefault(rule.content, []).append(rule)
    lines, profiles = ["rules:"], dict[str, list[str]]()
    for rules in shared.values():
        rule_id = _free_id(rules[0], ids)
        lines += _rule_lines(rule_id, rules)
        for rule in rules:
            profiles.setdefault(rule.profile, []).append(rule_id)
    lines.append("# add to the profiles:")
    return [*lines, *(f"#   {name}: [{', '.join(own)}]" for name, own in profiles.items())]
