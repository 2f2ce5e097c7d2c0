"""A stranger misspells any key of any sample policy, and can act on the answer."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import pytest

from palyra_egress.policy.document import Mapping, Node, Sequence, read_document
from palyra_egress.policy.errors import PolicyFileError, Position, ProblemCode, Problems
from palyra_egress.policy.language import POLICY, Section
from palyra_egress.policy.load import load_policy
from tests.egress.policy.policy_text import COMPLETE, POLICIES


class Slip(NamedTuple):
    """One key of one file, written wrongly once. `section` is None for names the author chose."""

    text: str
    position: Position
    right: str
    wrong: str
    section: Section | None


def _keys(
    node: Node | None, section: Section | None
) -> Iterator[tuple[str, Position, Section | None]]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _keys(item, section)
    if isinstance(node, Mapping):
        for name, (key, value) in node.entries.items():
            yield name, key.position, section
            row = None if section is None else section.key(name)
            inner = row.holds if row is not None and isinstance(row.holds, Section) else None
            yield from _keys(value, inner)


def _misspellings(word: str, known: frozenset[str]) -> Iterator[str]:
    """Each letter dropped, each pair of neighbours swapped."""
    dropped = [word[:i] + word[i + 1 :] for i in range(len(word))]
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]
    for wrong in dict.fromkeys([*dropped, *swapped]):
        if wrong and wrong != word and wrong not in known:
            yield wrong


def _slips(text: str) -> Iterator[Slip]:
    """Every key is misspelt; a key that comes again in the same section, in one way only."""
    lines = text.split("\n")
    seen: set[tuple[str, str]] = set()
    for name, position, section in _keys(read_document(text.encode(), Problems("f")), POLICY):
        line, start = lines[position.line - 1], position.column - 1
        ways = _misspellings(name, section.names if section is not None else frozenset())
        what = ("" if section is None else section.what, name)
        for wrong in islice(ways, 1) if what in seen else ways:
            changed = line[:start] + wrong + line[start + len(name) :]
            all_lines = [*lines[: position.line - 1], changed, *lines[position.line :]]
            yield Slip("\n".join(all_lines), position, name, wrong, section)
        seen.add(what)


FILES = {path.stem: path.read_text() for path in sorted(POLICIES.glob("*.yaml"))}
FILES["complete"] = COMPLETE


@pytest.mark.parametrize("name", FILES)
def test_every_misspelt_key_is_told_with_its_place_and_the_right_word(name: str) -> None:
    tried = 0
    for slip in _slips(FILES[name]):
        with pytest.raises(PolicyFileError) as refused:
            load_policy(slip.text.encode(), f"{name}.yaml")
        problems = refused.value.problems
        tried += 1
        if slip.section is None:
            # a profile's name is the author's own: what breaks is what asks for it
            assert any(
                problem.code is ProblemCode.UNKNOWN_PROFILE
                and repr(slip.right) in problem.message
                and problem.suggestion == slip.wrong
                for problem in problems
            ), (slip.wrong, str(refused.value))
            continue
        place = f"{name}.yaml:{slip.position.line}:{slip.position.column}: unknown_key: "
        told = [str(problem) for problem in problems if str(problem).startswith(place)]
        assert len(told) == 1, (slip.wrong, str(refused.value))
        assert repr(slip.wrong) in told[0]
        assert told[0].endswith(f"did you mean {slip.right!r}?"), told[0]
    assert tried > 50


def test_the_complete_policy_uses_every_key_of_the_language() -> None:
    def every(section: Section) -> Iterator[tuple[str, str]]:
        for key in section.keys:
            yield section.what, key.name
            if isinstance(key.holds, Section):
                yield from every(key.holds)

    tree = read_document(COMPLETE.encode(), Problems("f"))
    used = {(section.what, name) for name, _, section in _keys(tree, POLICY) if section is not None}
    assert used == set(every(POLICY))
