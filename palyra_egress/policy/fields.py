"""Typed access to one mapping of a policy file, with every mistake reported where it stands.

A `Fields` wraps a mapping, its section of the language and the collector of problems. Unknown and
missing keys are reported when it is made: unknown ones with the nearest known word (which is then
not missing too, but `meant`), words that are not enforced yet as `not_supported_yet`. Each reader
takes a key and returns the typed value, or the default where the key is absent or its value is
wrong (the problem is then recorded, so the file is refused anyway).
"""

from enum import StrEnum
from typing import Final

from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_egress.policy.language import POLICY, PROFILE, Section
from palyra_egress.policy.values import (
    EXPECTED_ID,
    EXPECTED_SIZE,
    EXPECTED_TIME,
    is_identifier,
    read_size,
    read_time_unix_ms,
    suggest_size,
)
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Mapping, Node, Position, Scalar, Sequence

MAX_TEXT: Final = 500


def describe(node: Node) -> str:
    """What stands there, in words."""
    match node:
        case Sequence():
            return "a list"
        case Mapping():
            return "a mapping"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return f"the boolean {node.text}"
        case Scalar(value=int()):
            return f"the number {node.text}"
        case _:
            return f"the text {node.text[:60]!r}"


def _elsewhere(name: str, value: Node, section: Section) -> str:
    """Where a word that is unknown here would be known: most often its indentation is wrong."""
    homes = POLICY.homes(name)
    if homes:
        return f" ({', '.join(homes)} has: is it indented as it should be?)"
    match value:
        case Sequence():
            is_profile = all(isinstance(item, Scalar) for item in value.items)
        case Mapping():
            is_profile = value.entries.keys() <= PROFILE.names
        case _:
            is_profile = False
    if is_profile and section in (POLICY, PROFILE):
        return " (a profile stands below 'profiles': is it indented as it should be?)"
    return ""


class Fields:
    """The entries of one mapping; see the module's docstring."""

    def __init__(self, mapping: Mapping, section: Section, problems: Problems) -> None:
        self.mapping = mapping
        self.section = section
        self.problems = problems
        self.meant: set[str] = set()
        known = section.names
        for name, (key, value) in mapping.entries.items():
            if name in known:
                continue
            if name in section.later:
                self.refuse(
                    key.position,
                    ProblemCode.NOT_SUPPORTED_YET,
                    f"{name!r} ({section.later[name]}) is not enforced by this version",
                    "a policy without it",
                )
                continue
            suggestion = nearest(name, known)
            if suggestion is not None:
                self.meant.add(suggestion)
            self.refuse(
                key.position,
                ProblemCode.UNKNOWN_KEY,
                f"{section.what} has no key {name[:60]!r}{_elsewhere(name, value, section)}",
                f"one of {', '.join(sorted(known))}",
                suggestion,
            )
        for wanted in section.keys:
            is_there = wanted.name in mapping.entries or wanted.name in self.meant
            if wanted.required is not None and not is_there:
                self.refuse(
                    mapping.position,
                    ProblemCode.MISSING_KEY,
                    f"{section.what} has no {wanted.name!r}",
                    wanted.required,
                )

    def refuse(
        self,
        position: Position,
        code: ProblemCode,
        message: str,
        expected: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        self.problems.add(position, code, message, expected=expected, suggestion=suggestion)

    def wrong(self, node: Node, name: str, expected: str) -> None:
        self.refuse(
            node.position, ProblemCode.WRONG_TYPE, f"{name!r} is {describe(node)}", expected
        )

    def node(self, name: str) -> Node | None:
        entry = self.mapping.entries.get(name)
        return None if entry is None else entry[1]

    def has(self, name: str) -> bool:
        return name in self.mapping.entries

    def text(self, name: str) -> str | None:
        """A non-empty text of bounded length, of signs that can be shown, and line ends."""
        node = self.node(name)
        if node is None:
            return None
        if not (isinstance(node, Scalar) and isinstance(node.value, str) and node.value):
            self.wrong(node, name, "a text")
            return None
        hidden = next((one for one in node.value if not one.isprintable() and one != "\n"), None)
        if len(node.value) > MAX_TEXT:
            what, expected = f"{name!r} is long", f"at most {MAX_TEXT}"
        elif hidden is not None:
            what = f"{name!r} has the sign U+{ord(hidden):04X}"
            expected = "signs that can be shown, and line ends"
        else:
            return node.value
        self.refuse(node.position, ProblemCode.BAD_VALUE, what, expected)
        return None

    def identifier(self, name: str) -> str:
        """An identifier; the empty text where it is missing or wrong."""
        node = self.node(name)
        if node is None:
            return ""
        if isinstance(node, Scalar) and isinstance(node.value, str) and is_identifier(node.value):
            return node.value
        self.refuse(
            node.position, ProblemCode.BAD_VALUE, f"{name!r} is {describe(node)}", EXPECTED_ID
        )
        return ""

    def boolean(self, name: str) -> bool:
        node = self.node(name)
        if node is None:
            return False
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        self.wrong(node, name, "true or false")
        return False

    def choice[E: StrEnum](self, name: str, choices: type[E], default: E) -> E:
        node = self.node(name)
        if node is None:
            return default
        words = [member.value for member in choices]
        if isinstance(node, Scalar) and node.value in words:
            return choices(node.text)
        self.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"{name!r} is {describe(node)}",
            f"one of {', '.join(words)}",
            nearest(node.text, words) if isinstance(node, Scalar) else None,
        )
        return default

    def size(self, name: str) -> int | None:
        node = self.node(name)
        if node is None:
            return None
        size = read_size(node.value) if isinstance(node, Scalar) else None
        if size is None:
            suggestion = suggest_size(node.text) if isinstance(node, Scalar) else None
            self.refuse(
                node.position,
                ProblemCode.BAD_VALUE,
                f"{name!r} is {describe(node)}",
                EXPECTED_SIZE,
                suggestion,
            )
        return size

    def whole(self, name: str, low: int, high: int) -> int | None:
        node = self.node(name)
        if node is None:
            return None
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        expected = f"a whole number from {low} to {high}"
        self.refuse(node.position, ProblemCode.BAD_VALUE, f"{name!r} is {describe(node)}", expected)
        return None

    def items(self, name: str, expected: str) -> tuple[Node, ...] | None:
        """The items of a list, None where the key is absent."""
        node = self.node(name)
        if node is None:
            return None
        if isinstance(node, Sequence):
            return node.items
        self.wrong(node, name, f"a list of {expected}")
        return ()

    def texts(self, name: str, expected: str) -> list[tuple[str, Position]] | None:
        """The texts of a list with their places, None where the key is absent."""
        items = self.items(name, expected)
        if items is None:
            return None
        found: list[tuple[str, Position]] = []
        for item in items:
            if isinstance(item, Scalar) and isinstance(item.value, str) and item.value:
                found.append((item.value, item.position))
            else:
                self.wrong(item, name, expected)
        return found

    def sub(self, name: str) -> "Fields | None":
        """The fields of a nested mapping, which has a section in the table."""
        node, key = self.node(name), self.section.key(name)
        if node is None or key is None or not isinstance(key.holds, Section):
            return None
        if isinstance(node, Mapping):
            return Fields(node, key.holds, self.problems)
        self.wrong(node, name, "a mapping")
        return None

    def moment(self, name: str) -> int | None:
        """A time in Unix milliseconds; None where it is missing or wrong."""
        node = self.node(name)
        if node is None:
            return None
        moment = read_time_unix_ms(node.text) if isinstance(node, Scalar) else None
        if moment is None:
            self.refuse(
                node.position, ProblemCode.BAD_VALUE, f"{name!r} is {describe(node)}", EXPECTED_TIME
            )
        return moment
