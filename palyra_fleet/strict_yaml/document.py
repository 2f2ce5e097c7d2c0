"""Reads YAML 1.2 strictly into nodes that remember their line and column.

Policies, approvers' files and approval rules are read with it. Input: the bytes of one file.
Output: a tree of `Scalar`, `Sequence` and `Mapping`, and every mistake that was found; the tree is
None where nothing can be built, and not to be used where there is a mistake. Refused: more bytes
than the caller takes, anything but UTF-8, several documents, directives, tags, anchors and aliases
(so no alias bomb exists), duplicate keys, nesting deeper than `MAX_DEPTH`, plain values that YAML
1.1 and 1.2 read differently (`no`, `0755`, `12:30:00`, `1_000`, `~`): those must be quoted; and, in
comments too, signs that let a reviewer see another file than the one we read: line ends that many
editors do not show, and marks that turn the direction of writing (Unicode UAX #9).
Plain `true`/`false` are booleans, plain decimal integers are integers, all else is text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from palyra_fleet.strict_yaml.words import in_plain_words

MAX_DEPTH: Final = 16
_MAX_AMBIGUOUS: Final = 100  # longer text is text to everybody, and the pattern stays cheap
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_AMBIGUOUS: Final = re.compile(
    r"(?:y|n|yes|no|on|off|null|~"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"  # sexagesimal
    r"|[-+]?0[0-9_]+|[-+]?0[box][0-9a-f_]+"  # octal, binary, hexadecimal
    r"|[-+][0-9][0-9_]*|[0-9][0-9_]*_[0-9_]*|[0-9]{19,}"  # signs, underscores, too long
    r"|[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9]+(?=e))(?:e[-+]?[0-9]+)?"  # floats
    r"|[-+]?\.inf|\.nan|<<|=)",
    re.ASCII | re.IGNORECASE,
)


def is_plain_text(text: str) -> bool:
    """True if every reader of YAML takes a plain scalar of this text as text."""
    if text == "" or text.lower() in {"true", "false"} or _INTEGER.fullmatch(text):
        return False
    return not _is_ambiguous(text)


def _is_ambiguous(text: str) -> bool:
    """Whether readers differ about this text. Some take underscores out wherever they stand, and
    then see whether a number is left, if the text begins like one (`-_1`, `1_e0`)."""
    if len(text) > _MAX_AMBIGUOUS:
        return False
    if _AMBIGUOUS.fullmatch(text):
        return True
    bare = text.replace("_", "") if text[0] in "+-.0123456789" else text
    return bare != text and bool(_AMBIGUOUS.fullmatch(bare) or _INTEGER.fullmatch(bare))


_UNSEEN: Final = re.compile(
    "\r(?!\n)|[\x80-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufff9-\ufffb\U000e0000-\U000e007f]|(?!\\A)\ufeff"
)
"""A lone carriage return, C1 controls (NEL ends a line for some), line and paragraph separators,
marks of direction, signs of no width but the joiners that scripts need, and a byte order mark that
does not stand first."""


class Fault(StrEnum):
    """Stable codes of what a file of YAML can have wrong before anybody asks what it means."""

    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    HIDDEN_SIGN = "hidden_sign"
    SYNTAX = "syntax"
    EMPTY = "empty"
    DUPLICATE_KEY = "duplicate_key"
    ALIAS = "alias"
    TAG = "tag"
    AMBIGUOUS_VALUE = "ambiguous_value"
    WRONG_TYPE = "wrong_type"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file; both numbers count from 1."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, where, and what would be right."""

    position: Position
    fault: Fault
    message: str
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: text, an integer, a boolean, or None for an empty value."""

    value: str | int | bool | None
    text: str
    position: Position


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple["Node", ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys keep their own scalar, so that a problem can point at the key."""

    entries: dict[str, tuple[Scalar, "Node"]]
    position: Position


type Node = Scalar | Sequence | Mapping


def _position(event: Event) -> Position:
    mark = event.start_mark
    return Position() if mark is None else Position(mark.line + 1, mark.column + 1)


class _TooDeep(Exception):
    """Nothing further is read: what the parser does for each opening grows with those before it."""

    def __init__(self, place: Position) -> None:
        super().__init__()
        self.place = place


class _Builder:
    """Builds the tree from the parser's events; one instance for one file."""

    def __init__(self, events: Iterator[Event], mistakes: list[Mistake]) -> None:
        self._events = events
        self._mistakes = mistakes

    def read(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                self._check_document(event, documents)
            elif isinstance(event, NodeEvent):
                node = self._node(event, 0)
                root = node if documents == 1 else root
        return root

    def _check_document(self, event: DocumentStartEvent, documents: int) -> None:
        if documents > 1:
            self._add(event, Fault.SYNTAX, "a second document", "one document in a file")
        if event.version or event.tags:
            self._add(event, Fault.SYNTAX, "a YAML directive", "plain YAML 1.2")

    def _add(self, event: Event, fault: Fault, message: str, expected: str) -> None:
        self._mistakes.append(Mistake(_position(event), fault, message, expected))

    def _node(self, event: Event, depth: int) -> Node:
        position = _position(event)
        if isinstance(event, AliasEvent):
            self._add(event, Fault.ALIAS, "an alias", "the value itself, written out")
            return Scalar(None, "", position)
        if getattr(event, "anchor", None) is not None:
            self._add(event, Fault.ALIAS, "an anchor", "no anchors and no aliases")
        if isinstance(event, ScalarEvent):
            return self._scalar(event, position)
        if getattr(event, "tag", None) is not None:
            self._add(event, Fault.TAG, "an explicit tag", "no tags")
        if depth >= MAX_DEPTH:
            raise _TooDeep(position)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(position, depth)
        return self._mapping(position, depth)

    def _scalar(self, event: ScalarEvent, position: Position) -> Scalar:
        text = str(event.value)
        if getattr(event, "tag", None) is not None:
            self._add(event, Fault.TAG, "an explicit tag", "no tags")
            return Scalar(text, text, position)
        if event.style:
            return Scalar(text, text, position)
        if text == "":
            return Scalar(None, "", position)
        if text in {"true", "false"}:
            return Scalar(text == "true", text, position)
        if _INTEGER.fullmatch(text):
            return Scalar(int(text), text, position)
        return Scalar(text, text, position)

    def _sequence(self, position: Position, depth: int) -> Sequence:
        items: list[Node] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self._value(event, depth + 1))
        return Sequence(tuple(items), position)

    def _value(self, event: Event, depth: int) -> Node:
        """A node in value position, where the ambiguous spellings are refused."""
        node = self._node(event, depth)
        if (
            isinstance(node, Scalar)
            and isinstance(event, ScalarEvent)
            and not event.style
            and not isinstance(node.value, bool | int)
            and node.text
            and (_is_ambiguous(node.text) or node.text.lower() in {"true", "false"})
        ):
            wrong = f"YAML versions disagree on what {node.text[:40]} means"
            expected = "true, false, a plain decimal number, or text in quotes"
            self._add(event, Fault.AMBIGUOUS_VALUE, wrong, expected)
        return node

    def _mapping(self, position: Position, depth: int) -> Mapping:
        entries: dict[str, tuple[Scalar, Node]] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            key = self._node(event, depth + 1)
            value = self._value(next(self._events), depth + 1)
            if not isinstance(key, Scalar) or key.text == "":
                self._add(event, Fault.WRONG_TYPE, "this key", "a word")
                continue
            first = entries.get(key.text)
            if first is not None:
                line = first[0].position.line
                wrong = f"the key {key.text!r} stands here again, first on line {line}"
                self._add(event, Fault.DUPLICATE_KEY, wrong, "each key once")
                continue
            if isinstance(value, Scalar) and value.value is None:
                value = Scalar(None, "", key.position)  # what is missing is missing at its key
            entries[key.text] = (key, value)
        return Mapping(entries, position)


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read. With mistakes the tree is not to be used."""

    root: Node | None
    mistakes: tuple[Mistake, ...]


def read_yaml(source: bytes, *, max_bytes: int, what: str) -> Document:
    """One file; `what` says what an empty one should hold. Never raises; an error of syntax ends
    the reading, and so does nesting that is too deep."""
    if len(source) > max_bytes:
        wrong, expected = f"the file has {len(source)} bytes", f"at most {max_bytes}"
        return _refused(Position(), Fault.TOO_LARGE, wrong, expected)
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        column = error.start - source.rfind(b"\n", 0, error.start)
        place = Position(line, column)
        return _refused(place, Fault.NOT_UTF8, "bytes that are not UTF-8", "UTF-8")
    unseen = _UNSEEN.search(text)
    if unseen is not None:
        start = unseen.start()
        place = Position(text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start))
        wrong = f"the sign U+{ord(unseen[0]):04X}, which many editors do not show"
        return _refused(place, Fault.HIDDEN_SIGN, wrong, "text that all see alike")
    mistakes: list[Mistake] = []
    try:
        root = _Builder(iter(YAML(typ="safe", pure=True).parse(text)), mistakes).read()
    except _TooDeep as deep:
        wrong, expected = "nesting is too deep", f"at most {MAX_DEPTH}"
        return Document(None, (*mistakes, Mistake(deep.place, Fault.SYNTAX, wrong, expected)))
    except (YAMLError, ValueError, RecursionError) as error:
        return Document(None, (*mistakes, _syntax(error, text)))
    if root is None:
        return _refused(Position(), Fault.EMPTY, "the file is empty", what)
    return Document(root, tuple(mistakes))


def _refused(place: Position, fault: Fault, message: str, expected: str) -> Document:
    return Document(None, (Mistake(place, fault, message, expected),))


def _syntax(error: Exception, text: str) -> Mistake:
    """The parser's complaint, where it stands and in the words of those who write such files."""
    match error:
        case MarkedYAMLError():
            mark = error.problem_mark or error.context_mark
            place = Position() if mark is None else Position(mark.line + 1, mark.column + 1)
            said = error.problem or error.context or "this is not YAML"
            wrong, expected = in_plain_words(str(said))
            return Mistake(place, Fault.SYNTAX, wrong, expected)
        case ReaderError():
            place = Position(text.count("\n", 0, error.position) + 1)
            return Mistake(place, Fault.SYNTAX, "a character that YAML does not allow")
        case _:
            return Mistake(Position(), Fault.SYNTAX, f"not YAML: {type(error).__name__}")
