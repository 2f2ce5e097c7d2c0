"""YAML 1.2 read strictly into plain values, with the line and column of each.

Output: the value and, by path, where each value and each key stands. Refused are more than one
document, aliases and anchors (so no alias bomb exists), tags, directives, duplicate keys, keys that
are no text, nesting deeper than `MAX_DEPTH`, plain values that other readers of YAML take for
something else (`no`, `0755`, `1_000`: those must be quoted), and signs that many editors do not
show. Plain `true` and `false` are booleans, plain decimal numbers integers, all else is text.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 12
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_TEXT_TO_ALL: Final = re.compile(r"[A-Za-z*/@(<][^\n]*|[0-9]+[A-Za-z:.-][^\n]*", re.ASCII)
_TAKEN: Final = re.compile(
    r"y|n|yes|no|on|off|true|false|null|~|[0-9]+(?::[0-9]{1,2})+|0[box][0-9a-f_]+"
    r"|[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?",
    re.ASCII | re.IGNORECASE,
)

type Path = tuple[str | int, ...]
type Value = str | int | bool | list["Value"] | dict[str, "Value"] | None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Both count from 1."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong, where, and what was expected."""

    place: Place
    code: str
    said: str


@dataclass(slots=True)
class Positioned:
    """A read file. With mistakes the value is not to be used."""

    value: Value = None
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def near(self, path: Path) -> Place:
        """Where this stands, or the closest thing around it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, Place())


def read_yaml(source: bytes) -> Positioned:
    """One file's bytes. Never raises."""
    found = Positioned()
    if len(source) > MAX_BYTES:
        return _one(found, Place(), "too_large", f"more than {MAX_BYTES} bytes")
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        return _one(found, Place(line), "not_utf8", "bytes that are not UTF-8")
    if (hidden := _hidden(text)) is not None:
        return _one(found, hidden, "hidden_sign", "a sign that many editors do not show")
    try:
        reader = _Reader(iter(YAML(typ="safe", pure=True).parse(text)), found)
        found.value = reader.document()
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place() if mark is None else Place(mark.line + 1, mark.column + 1)
        return _one(found, place, "syntax", str(error.problem or error.context or "not YAML"))
    except (YAMLError, ValueError, RecursionError) as error:
        return _one(found, Place(), "syntax", f"not YAML: {type(error).__name__}")
    if found.value is None and not found.mistakes:
        _one(found, Place(), "empty", "the file is empty")
    return found


def _hidden(text: str) -> Place | None:
    """Where the first control character, mark of direction or odd line end stands."""
    for number, line in enumerate(text.split("\n"), 1):
        for column, sign in enumerate(line.removesuffix("\r"), 1):
            if unicodedata.category(sign) in {"Cc", "Cf", "Zl", "Zp"}:
                return Place(number, column)
    return None


def _one(found: Positioned, place: Place, code: str, said: str) -> Positioned:
    found.mistakes.append(Mistake(place, code, said))
    return found


class _Reader:
    """From the parser's events to values."""

    def __init__(self, events: Iterator[Event], found: Positioned) -> None:
        self._events = events
        self._found = found

    def document(self) -> Value:
        root: Value = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1 or event.version or event.tags:
                    self._wrong(event, "syntax", "one document of plain YAML 1.2 was expected")
            elif isinstance(event, NodeEvent):
                value = self._node(event, ())
                root = value if documents == 1 else root
        return root

    def _wrong(self, event: Event, code: str, said: str) -> None:
        self._found.mistakes.append(Mistake(_place(event), code, said))

    def _node(self, event: Event, path: Path) -> Value:
        self._found.places[path] = _place(event)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            self._wrong(event, "alias", "an anchor or alias; expected the value, written out")
        if getattr(event, "tag", None) is not None:
            self._wrong(event, "tag", "an explicit tag; expected none")
        match event:
            case ScalarEvent():
                return self._scalar(event)
            case SequenceStartEvent() | MappingStartEvent() if len(path) >= MAX_DEPTH:
                self._wrong(event, "syntax", f"nested deeper than {MAX_DEPTH}")
                self._skip()
                return None
            case SequenceStartEvent():
                return self._list(path)
            case MappingStartEvent():
                return self._mapping(path)
            case _:
                return None

    def _skip(self) -> None:
        depth = 1
        while depth:
            event = next(self._events)
            depth += isinstance(event, SequenceStartEvent | MappingStartEvent)
            depth -= isinstance(event, SequenceEndEvent | MappingEndEvent)

    def _scalar(self, event: ScalarEvent) -> Value:
        text = str(event.value)
        if event.style:
            return text
        if text == "":
            return None
        if text in {"true", "false"}:
            return text == "true"
        if _INTEGER.fullmatch(text):
            return int(text)
        if _TAKEN.fullmatch(text) or not _TEXT_TO_ALL.fullmatch(text):
            said = f"readers of YAML disagree on {text[:40]!r}; expected it in quotes"
            self._wrong(event, "ambiguous_value", said)
        return text

    def _list(self, path: Path) -> list[Value]:
        items: list[Value] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Value]:
        entries: dict[str, Value] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            if not isinstance(event, ScalarEvent):
                self._wrong(event, "syntax", "a key that is no word")
                self._node(event, (*path, "?"))
                self._node(next(self._events), (*path, "?"))
                continue
            name = str(event.value)
            twice = name in entries
            if twice:
                self._wrong(event, "duplicate_key", f"the key {name[:60]!r} stands here again")
            value = self._node(next(self._events), (*path, "?") if twice else (*path, name))
            if not twice:
                entries[name] = value
                self._found.keys[*path, name] = _place(event)
        return entries


def _place(event: Event) -> Place:
    mark = event.start_mark
    return Place() if mark is None else Place(mark.line + 1, mark.column + 1)
