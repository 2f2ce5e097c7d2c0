"""A policy file as a tree of entries that keep their comments, for the formatter.

Input: the text of a file that loads (so: no anchors, tags, directives or second documents). Output:
a `Tree`. A comment on a line of its own belongs to the entry below it (`lead`), or, where it is
indented deeper than that, to the last entry of its own depth (`foot`); a comment behind something
belongs to it (`trail`). Comments before the first key belong to the file (`head`). A flow
collection with comments inside is marked, since only a block can carry them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.tokens import BlockEntryToken, ScalarToken, Token

_COMMENT: Final = re.compile(r"#[^\n]*")
_BLOCK_HEADER: Final = re.compile(r"[|>][-+0-9]*[ \t]+(#[^\n]*)")


class Place(NamedTuple):
    """Where something stands: characters from the start, line from 0, column from 0."""

    offset: int
    line: int
    column: int


class Comment(NamedTuple):
    """`own_line` is False where something stands before it on its line."""

    place: Place
    text: str
    own_line: bool


class Line(NamedTuple):
    """A comment as it is written, and whether an empty line stood before it."""

    text: str
    blank_before: bool


@dataclass(slots=True, eq=False)
class Entry:
    """One key with its value, or one item of a list (then `key` is None)."""

    key: str | None
    value: "Tree"
    place: Place
    blank_before: bool = False
    lead: list[Line] = field(default_factory=list)
    foot: list[Line] = field(default_factory=list)
    trail: str | None = None


@dataclass(slots=True, eq=False)
class Tree:
    """A value. A scalar has `text`; `is_quoted` says that the text is text whatever it spells."""

    start: int
    end: int
    is_flow: bool = False
    is_list: bool = False
    text: str | None = None
    is_quoted: bool = False
    entries: list[Entry] = field(default_factory=list)
    has_comments: bool = False


@dataclass(slots=True, eq=False)
class CommentedFile:
    head: list[Line]
    root: Tree


def _tokens(text: str) -> list[Token]:
    return list(YAML(typ="safe", pure=True).scan(text))


def _place(text: str, index: int) -> Place:
    return Place(index, text.count("\n", 0, index), index - text.rfind("\n", 0, index) - 1)


def _comments(text: str, tokens: list[Token]) -> Iterator[Comment]:
    """What stands between tokens is blank space and comments."""
    position = 0
    spans = [(token.start_mark.index, token.end_mark.index) for token in tokens]
    for start, end in [*spans, (len(text), len(text))]:
        for found in _COMMENT.finditer(text, position, max(position, start)):
            place = _place(text, found.start())
            before = text[place.offset - place.column : place.offset]
            yield Comment(place, found[0].rstrip(), not before.strip())
        position = max(position, end)
        header = _BLOCK_HEADER.match(text, start) if end > start else None
        if header is not None:
            yield Comment(_place(text, header.start(1)), header[1].rstrip(), own_line=False)


def comment_texts(text: str) -> list[str]:
    """Every comment of a file, in alphabetical order: what a formatter must not lose."""
    return sorted(comment.text for comment in _comments(text, _tokens(text)))


class _Builder:
    """Turns ruamel's nodes into trees; `dashes` are the places of block list items, in order."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        self.text = text
        self.lines = text.split("\n")
        self.entries: list[Entry] = []
        self.trees: list[Tree] = []
        self._in_flow: set[int] = set()
        self._dashes = iter(
            [token.start_mark.index for token in tokens if isinstance(token, BlockEntryToken)]
        )
        self._quoted = {
            token.start_mark.index
            for token in tokens
            if isinstance(token, ScalarToken) and not token.plain
        }

    def is_blank_before(self, place: Place) -> bool:
        return place.line > 0 and not self.lines[place.line - 1].strip()

    def is_in_flow(self, entry: Entry) -> bool:
        return id(entry) in self._in_flow

    def tree(self, node: Node) -> Tree:
        start, end = node.start_mark.index, node.end_mark.index
        if isinstance(node, ScalarNode):
            return Tree(start, end, text=str(node.value), is_quoted=start in self._quoted)
        tree = Tree(
            start,
            end,
            isinstance(node, CollectionNode) and bool(node.flow_style),
            isinstance(node, SequenceNode),
        )
        self.trees.append(tree)
        if isinstance(node, MappingNode):
            for key, value in node.value:
                self._add(tree, str(key.value), key.start_mark.index, value)
        else:
            for item in node.value:
                at = item.start_mark.index if tree.is_flow else next(self._dashes)
                self._add(tree, None, at, item)
        return tree

    def _add(self, tree: Tree, key: str | None, index: int, node: Node) -> None:
        place = _place(self.text, index)
        entry = Entry(key, Tree(index, index), place, self.is_blank_before(place))
        self.entries.append(entry)
        tree.entries.append(entry)
        if tree.is_flow:
            self._in_flow.add(id(entry))
        entry.value = self.tree(node)


class _Attacher:
    """Gives each comment to the entry it belongs to."""

    def __init__(self, builder: _Builder, root: Tree) -> None:
        self.builder = builder
        self.head: list[Line] = []
        self.flows = [tree for tree in builder.trees if tree.is_flow]
        self.blocks = [entry for entry in builder.entries if not builder.is_in_flow(entry)]
        self.blocks = self.blocks or root.entries

    def attach(self, comment: Comment) -> None:
        line = Line(comment.text, self.builder.is_blank_before(comment.place))
        index = comment.place.offset
        around = [flow for flow in self.flows if flow.start < index < flow.end]
        for flow in around:
            flow.has_comments = True
        inner = max(around, key=lambda flow: flow.start) if around else None
        before = [entry for entry in self.blocks if entry.place.offset < index]
        if inner is not None and inner.entries:
            self._attach_inside(inner, comment, line)
        elif not before:
            self.head.append(line)
        elif inner is not None or not comment.own_line:
            self._trail(before[-1], line)
        else:
            self._attach_block(before, comment.place, line)

    def _attach_inside(self, flow: Tree, comment: Comment, line: Line) -> None:
        index = comment.place.offset
        before = [entry for entry in flow.entries if entry.place.offset < index]
        after = [entry for entry in flow.entries if entry.place.offset > index]
        if not comment.own_line and before:
            self._trail(before[-1], line)
        elif after:
            after[0].lead.append(line)
        else:
            before[-1].foot.append(line)

    @staticmethod
    def _trail(entry: Entry, line: Line) -> None:
        if entry.trail is None:
            entry.trail = line.text
        else:
            entry.lead.append(line)

    def _attach_block(self, before: list[Entry], place: Place, line: Line) -> None:
        after = next((entry for entry in self.blocks if entry.place.offset > place.offset), None)
        owner = [entry for entry in before if entry.place.column <= place.column][-1:] or before
        column = min(place.column, owner[-1].place.column)
        if after is not None and column <= after.place.column:
            after.lead.append(line)
        else:
            owner[-1].foot.append(line)


def read_commented(text: str) -> CommentedFile:
    """The tree of a file that loads; its root is a mapping."""
    tokens = _tokens(text)
    builder = _Builder(text, tokens)
    root = builder.tree(YAML(typ="safe", pure=True).compose(text))
    attacher = _Attacher(builder, root)
    for comment in _comments(text, tokens):
        attacher.attach(comment)
    return CommentedFile(attacher.head, root)
