"""The one way to write a policy file: `policy fmt`.

Input: the bytes of one well-formed file. Output: the same file in canonical form: keys in the order
of the language's table, two spaces for each level, sizes and durations in their largest unit, hosts
in lower case, methods in upper case, quotes only where they are needed. Whether a list stands on
one line or on many is left to the author, unless one line is longer than `WIDTH`. Comments stay
with what they explain. Invariants: formatting twice changes nothing more; the policy means the same
before and after and no comment is lost, or `FormatRefused` is raised and nothing is changed.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from palyra_egress.policy.commented_tree import (
    Entry,
    Line,
    Tree,
    comment_texts,
    read_commented,
)
from palyra_egress.policy.errors import PolicyFileError, ProblemCode, Problems
from palyra_egress.policy.language import POLICY, Holds, Key, Number, Section
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.meaning import Meaning, meaning
from palyra_egress.policy.reader import read_part
from palyra_egress.policy.schema import PolicyPart
from palyra_egress.policy.values import (
    read_duration_ms,
    read_size,
    write_duration,
    write_size,
)
from palyra_fleet.strict_yaml.document import is_plain_text

WIDTH: Final = 120
_STEP: Final = "  "
_NEVER_PLAIN: Final = frozenset('#"\\\t\n\r')
_FLOW_SIGNS: Final = frozenset(",[]{}")
_ELSEWHERE: Final = frozenset({ProblemCode.UNKNOWN_RULE, ProblemCode.UNKNOWN_PROFILE})
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class FormatRefused(Exception):
    """The formatter cannot write this file without changing what it says or losing a comment."""


def _quoted(text: str) -> str:
    signs = (
        _ESCAPES.get(sign) or (sign if sign.isprintable() else f"\\U{ord(sign):08X}")
        for sign in text
    )
    return f'"{"".join(signs)}"'


def _written(text: str, *, in_flow: bool) -> str:
    """A text as a scalar: plain where every reader takes it as this text."""
    is_safe = (
        text.isprintable()
        and is_plain_text(text)
        and (text[0].isalnum() or text[0] in "./_")
        and not text.endswith((" ", ":"))
        and ": " not in text
        and not any(sign in _NEVER_PLAIN for sign in text)
        and not (in_flow and any(sign in _FLOW_SIGNS for sign in text))
    )
    return text if is_safe else _quoted(text)


def _canonical(text: str, holds: Holds | None) -> str:
    match holds:
        case Holds.SIZE:
            size = read_size(int(text) if text.isdigit() else text)
            return text if size is None else write_size(size)
        case Holds.DURATION:
            duration = read_duration_ms(text)
            return text if duration is None else write_duration(duration)
        case Holds.HOST | Holds.PRIVATE_RANGE | Holds.CREDENTIAL_HEADER:
            return text.lower()
        case Holds.METHOD | Holds.TIME:
            return text.upper()
        case _:
            return text


def _scalar(tree: Tree, key: Key | None, *, in_flow: bool) -> str:
    text = tree.text or ""
    holds = None if key is None or isinstance(key.holds, Section) else key.holds
    if not tree.is_quoted and not is_plain_text(text):
        return _canonical(text, holds)  # a number or a boolean
    canonical = _canonical(text, holds)
    return canonical if holds is Holds.SIZE else _written(canonical, in_flow=in_flow)


def _section(key: Key | None) -> Section | None:
    """The keys that may stand in a mapping; None where the names are free."""
    if key is None or key.number is Number.BY_NAME:
        return None
    return key.holds if isinstance(key.holds, Section) else None


def _key_of(entry: Entry, key: Key | None, section: Section | None) -> Key | None:
    """The table's row for an entry's value: an item has the row of its list, and what stands under
    a free name the row of one of its kind."""
    if entry.key is not None and key is not None and key.number is Number.BY_NAME:
        return replace(key, number=Number.ONE)
    if entry.key is None or section is None:
        return key
    return section.key(entry.key)


def _ordered(entries: list[Entry], section: Section | None) -> list[Entry]:
    if section is None:
        return entries
    rank = {key.name: position for position, key in enumerate(section.keys)}
    return sorted(entries, key=lambda entry: rank.get(entry.key or "", len(rank)))


def _flow(tree: Tree, key: Key | None) -> str:
    """A value on one line."""
    if tree.text is not None:
        return _scalar(tree, key, in_flow=True)
    section = None if tree.is_list else _section(key)
    parts: list[str] = []
    for entry in _ordered(tree.entries, section):
        value = _flow(entry.value, _key_of(entry, key, section))
        parts.append(value if entry.key is None else f"{entry.key}: {value}")
    return f"[{', '.join(parts)}]" if tree.is_list else f"{{{', '.join(parts)}}}"


def _has_comments(tree: Tree) -> bool:
    inside = any(_has_comments(entry.value) for entry in tree.entries)
    return tree.has_comments or inside


class _Writer:
    """Collects lines; the first line of a block never has an empty one before it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._at_start = True

    def open_block(self) -> None:
        self._at_start = True

    def put(self, text: str, *, blank_before: bool) -> None:
        if blank_before and not self._at_start:
            self.lines.append("")
        self._at_start = False
        self.lines.append(text)

    def comments(self, lines: Iterable[Line], indent: str) -> None:
        for line in lines:
            self.put(f"{indent}{line.text}", blank_before=line.blank_before)

    def block(
        self, tree: Tree, key: Key | None, indent: str, dash: str = "", dash_blank: bool = False
    ) -> None:
        """The entries of a mapping or a list; `dash` stands before the first key of an item."""
        section = None if tree.is_list else _section(key)
        for position, entry in enumerate(_ordered(tree.entries, section)):
            row = _key_of(entry, key, section)
            if position == 0 and dash:
                first = indent.removesuffix(_STEP)
                self.comments(entry.lead, first)
                self._entry(entry, row, indent, f"{first}{dash}", blank_before=dash_blank)
            else:
                self.comments(entry.lead, indent)
                self._entry(entry, row, indent, indent, blank_before=entry.blank_before)
            self.comments(entry.foot, indent)

    def _entry(
        self, entry: Entry, row: Key | None, indent: str, start: str, *, blank_before: bool
    ) -> None:
        trail = "" if entry.trail is None else f" {entry.trail}"
        tree = entry.value
        label = "- " if entry.key is None else f"{entry.key}: "
        one_line = self._one_line(tree, row, f"{start}{label}")
        if one_line is not None:
            self.put(f"{start}{label}{one_line}{trail}", blank_before=blank_before)
        elif entry.key is None:
            if entry.trail is not None:
                self.put(f"{start}{entry.trail}", blank_before=blank_before)
                blank_before = False
            self.block(tree, row, f"{indent}{_STEP}", "- ", dash_blank=blank_before)
        else:
            self.put(f"{start}{entry.key}:{trail}", blank_before=blank_before)
            self.open_block()
            self.block(tree, row, f"{indent}{_STEP}")
            self._at_start = False

    @staticmethod
    def _one_line(tree: Tree, row: Key | None, start: str) -> str | None:
        """The value if it stands on the line of its key; None if it needs a block."""
        if tree.text is not None:
            return _scalar(tree, row, in_flow=False)
        if not tree.entries:
            return _flow(tree, row)
        if not tree.is_flow or _has_comments(tree):
            return None
        text = _flow(tree, row)
        return text if len(start) + len(text) <= WIDTH else None


def _separate(root: Tree) -> None:
    """An empty line before every section of the file that is more than a line."""
    for entry in root.entries:
        if entry.value.entries and not entry.value.is_flow:
            if entry.lead:
                entry.lead[0] = Line(entry.lead[0].text, blank_before=True)
            else:
                entry.blank_before = True


def _write(text: str) -> str:
    file = read_commented(text)
    _separate(file.root)
    writer = _Writer()
    writer.comments(file.head, "")
    top = Key("", POLICY, "", Number.ONE)
    writer.block(file.root, top, "")
    return "\n".join([*writer.lines, ""])


def _own_part(source: bytes, file: str) -> PolicyPart:
    """The file alone, without what it includes or refers to."""
    problems = Problems(file)
    part = read_part(source, problems)
    if part is None or problems.found:
        problems.raise_all()
    return part


def _check_alone(source: bytes, file: str, part: PolicyPart) -> None:
    """A file that stands alone must load. One that includes others, or names rules and profiles
    that others have, is a part of a policy: whether that loads is for `policy check` to say."""
    if part.includes:
        return
    try:
        load_policy(source, file)
    except PolicyFileError as error:
        if any(problem.code not in _ELSEWHERE for problem in error.problems):
            raise


def _says(part: PolicyPart) -> tuple[Meaning, list[str]]:
    return meaning(part.spec), [text for text, _ in part.includes]


def format_policy(source: bytes, file: str) -> bytes:
    """The canonical text; raises `PolicyFileError` if the file has mistakes."""
    before = _own_part(source, file)
    _check_alone(source, file, before)
    written = _write(source.decode("utf-8")).encode()
    if _says(before) != _says(_own_part(written, file)):
        raise FormatRefused(f"{file}: the formatted file would not mean the same")
    if comment_texts(source.decode("utf-8")) != comment_texts(written.decode("utf-8")):
        raise FormatRefused(f"{file}: a comment stands where the formatter cannot keep it")
    return written
