"""What an importer collects: rules, denials, profiles, and a line for all that is not the same.

A translator reads plain values (`Value`) and fills a `Draft`. Every difference goes into one of
three lists: `changed` (carried in another form or narrower), `left_out` (no part of a policy, such
as listening addresses) and `dropped` (meant something, cannot be said here). Only `dropped` makes
an import incomplete.

Invariants: nothing is carried wider than it was; an allow entry that cannot be carried is dropped;
a deny entry that cannot be carried is made wider, and if that is impossible the whole file is
refused (`ImportRefused`), because leaving it out would allow more than the original does.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from palyra_egress.policy.schema import DEFAULT_SCHEMES
from palyra_egress.request import Scheme

type Value = str | int | float | bool | list["Value"] | dict[str, "Value"] | None

PLAIN_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
METHODS_CHANGE: Final = "every method becomes the methods that the rules list"
EVERY_PORT_CHANGE: Final = "every port of a host becomes 443, and 80 for plain http"
PORTS_CHANGE: Final = "a host without a port becomes 443, and 80 for plain http"
BOTH_SCHEMES: Final[tuple[Scheme, ...]] = ("http", "https")
_MAX_QUOTED: Final = 80
_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


class Fate(StrEnum):
    """What becomes of a key of the other tool's format."""

    TRANSLATED = "translated"
    LEFT_OUT = "left out"
    REFUSED = "refused"


class KeyFate(NamedTuple):
    """A row of a translator's table of keys; `why` is told wherever the key stands in a file."""

    fate: Fate
    why: str = ""


TRANSLATED: Final = KeyFate(Fate.TRANSLATED)


class ImportRefused(ValueError):
    """The file is not of this format, or cannot be carried without allowing more than it does."""


def quoted(text: str) -> str:
    """A stranger's text for a comment: printable ASCII, in quotes, of bounded length."""
    shown = ascii(text[:_MAX_QUOTED])
    return f"{shown}…" if len(text) > _MAX_QUOTED else shown


@dataclass(frozen=True, slots=True)
class DraftCredential:
    """A binding in our words: `secret` names it, `form` has the slot where it stands."""

    header: str
    secret: str
    form: str


@dataclass(frozen=True, slots=True)
class DraftRule:
    """One allow rule in our words; `ports` and `paths` None mean the language's defaults."""

    rule_id: str
    hosts: tuple[str, ...]
    methods: tuple[str, ...] = PLAIN_METHODS
    schemes: tuple[Scheme, ...] = DEFAULT_SCHEMES
    ports: tuple[int, ...] | None = None
    paths: tuple[str, ...] | None = None
    private: tuple[str, ...] = ()
    owner: str | None = None
    credentials: tuple[DraftCredential, ...] = ()


@dataclass(frozen=True, slots=True)
class DraftDeny:
    rule_id: str
    hosts: tuple[str, ...]
    reason: str | None = None


@dataclass(slots=True)
class Draft:
    """The policy as far as it is translated. Ids are handed out by `new_id`, each once."""

    source: str
    rules: list[DraftRule] = field(default_factory=list)
    deny: list[DraftDeny] = field(default_factory=list)
    profiles: dict[str, list[str]] = field(default_factory=dict)
    observes: bool = False
    changed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    def new_id(self, wanted: str) -> str:
        """An identifier near `wanted` that no other rule of this draft has."""
        base = identifier(wanted)
        candidate, number = base, 1
        while candidate in self._ids:
            number += 1
            candidate = f"{base[:58]}-{number}"
        self._ids.add(candidate)
        return candidate

    def add_rule(self, rule: DraftRule, profile: str) -> None:
        self.rules.append(rule)
        self.profiles.setdefault(profile, []).append(rule.rule_id)

    def change(self, text: str) -> None:
        if text not in self.changed:
            self.changed.append(text)

    def drop(self, where: str, why: str) -> None:
        self.dropped.append(f"{where}: {why}")

    def has_only_known_keys(
        self, mapping: Mapping[str, Value], where: str, fates: Mapping[str, KeyFate]
    ) -> bool:
        """Notes each key by its fate; False if one is unknown and may restrict what is allowed."""
        known = True
        for key in mapping:
            place = f"{where}.{key}" if where else key
            fate = fates.get(key)
            if fate is None:
                self.drop(shown_place(place), "an unknown key")
                known = False
            elif fate.fate is Fate.LEFT_OUT:
                self.left_out.append(f"{shown_place(place)}: {fate.why}")
            elif fate.fate is Fate.REFUSED:
                self.drop(shown_place(place), fate.why)
        return known


def start_draft(source: str, *changes: str) -> Draft:
    """An empty draft that tells what is always other here than in the source."""
    draft = Draft(source)
    for change in (*changes, METHODS_CHANGE):
        draft.change(change)
    return draft


def only_profile(draft: Draft, wanted: str | None) -> str:
    """The name of the draft's one profile."""
    name = wanted or "imported"
    draft.profiles[name] = []
    return name


def known_mapping(
    draft: Draft, value: Value, where: str, fates: Mapping[str, KeyFate], needs: str, missing: str
) -> dict[str, Value]:
    """A mapping whose keys are noted by their fates, and that has the one key it must have."""
    mapping = mapping_of(value, where or "the file")
    draft.has_only_known_keys(mapping, where, fates)
    if needs not in mapping:
        raise ImportRefused(missing)
    return mapping


def shown_place(place: str) -> str:
    """A path of keys for a comment; anything unusual in it is quoted."""
    return place if re.fullmatch(r"[A-Za-z0-9_$.\[\]-]{1,120}", place, re.ASCII) else quoted(place)


def identifier(text: str) -> str:
    """The nearest text that is an identifier of our language."""
    return _NOT_IN_ID.sub("-", text).lstrip("._-")[:64] or "imported"


def mapping_of(value: Value, where: str) -> dict[str, Value]:
    if isinstance(value, dict):
        return value
    raise ImportRefused(f"{shown_place(where)} is not a mapping")


def items_of(value: Value, where: str) -> Iterator[tuple[str, Value]]:
    """The items of a list with the place of each; an absent list has none."""
    if value is None:
        return
    if not isinstance(value, list):
        raise ImportRefused(f"{shown_place(where)} is not a list")
    for number, item in enumerate(value):
        yield f"{where}[{number}]", item


def texts_of(value: Value, where: str) -> list[tuple[str, str]]:
    """The texts of a list with the place of each; an absent list has none."""
    return [(place, text_of(item, place)) for place, item in items_of(value, where)]


def text_of(value: Value, where: str) -> str:
    if isinstance(value, str):
        return value
    raise ImportRefused(f"{shown_place(where)} is not a text")


def boolean_of(value: Value, where: str) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    raise ImportRefused(f"{shown_place(where)} is not true or false")


def port_of(value: Value, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise ImportRefused(f"{shown_place(where)} is not a port from 1 to 65535")
