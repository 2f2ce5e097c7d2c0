"""A stranger gets any key of any sample policy wrong, its spelling, its indentation or what stands
under it, and can act on the answer."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.document import read_document
from palyra_egress.policy.errors import PolicyFileError, ProblemCode, Problems
from palyra_egress.policy.language import POLICY, Number, Section
from palyra_egress.policy.load import load_policy, load_sources, read_files
from palyra_egress.policy.meaning import meaning
from palyra_fleet.strict_yaml.document import Mapping, Node, Position, Sequence
from tests.egress.policy.policy_text import COMPLETE, PIPELINE, POLICIES, SAMPLE_FILES


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
            if row is not None and row.number is Number.BY_NAME and isinstance(value, Mapping):
                for free, (free_key, one) in value.entries.items():
                    yield free, free_key.position, None
                    yield from _keys(one, inner)
            else:
                yield from _keys(value, inner)


def _ways(word: str) -> Iterator[tuple[str, str]]:
    """Each way in which fingers and habits get a word wrong, with its kind."""
    for i in {0, len(word) // 2, len(word) - 1}:
        yield "dropped", word[:i] + word[i + 1 :]
        yield "doubled", word[: i + 1] + word[i:]
        yield "swapped", word[:i] + word[i + 1 : i + 2] + word[i] + word[i + 2 :]
    yield "case", word.capitalize()
    yield "case", word.upper()
    yield "case", re.sub("_(.)", lambda found: found[1].upper(), word)
    yield "hyphen", word.replace("_", "-")
    yield "number", word.removesuffix("s") if word.endswith("s") else f"{word}s"


def _misspellings(word: str, known: frozenset[str], *, all_of_them: bool) -> Iterator[str]:
    """All ways, or three kinds of them, others for each word."""
    wrong = {
        text: kind for kind, text in _ways(word) if text and text != word and text not in known
    }
    if all_of_them:
        yield from wrong
        return
    one_of_each = list({kind: text for text, kind in wrong.items()}.values())
    start = len(word) % len(one_of_each)
    yield from (one_of_each + one_of_each)[start : start + min(3, len(one_of_each))]


def _slips(text: str, *, all_of_them: bool) -> Iterator[Slip]:
    """Every key is misspelt: in each way where it comes first in its section, else in some."""
    lines = text.split("\n")
    seen: set[tuple[str, str]] = set()
    for name, position, section in _keys(read_document(text.encode(), Problems("f")), POLICY):
        line, start = lines[position.line - 1], position.column - 1
        what = ("" if section is None else section.what, name)
        known = section.names if section is not None else frozenset[str]()
        for wrong in _misspellings(name, known, all_of_them=all_of_them and what not in seen):
            changed = line[:start] + wrong + line[start + len(name) :]
            all_lines = [*lines[: position.line - 1], changed, *lines[position.line :]]
            yield Slip("\n".join(all_lines), position, name, wrong, section)
        seen.add(what)


FILES = {str(path.relative_to(POLICIES)): path.read_text() for path in SAMPLE_FILES}
FILES["complete.yaml"] = COMPLETE
TOGETHER = PIPELINE.relative_to(POLICIES)


def load(name: str, text: str) -> CompiledPolicy:
    """The policy with this text as one of its files, the others being right."""
    if not name.startswith(f"{TOGETHER.parent}/"):
        return load_policy(text.encode(), name)
    sources = [
        (
            inner,
            text.encode() if str(TOGETHER.parent / (inner or TOGETHER.name)) == name else source,
        )
        for inner, source in read_files(PIPELINE, str(TOGETHER)).sources
    ]
    return load_sources(sources, str(TOGETHER))


@pytest.mark.parametrize("name", FILES)
def test_every_misspelt_key_is_told_with_its_place_and_the_right_word(name: str) -> None:
    tried = 0
    for slip in _slips(FILES[name], all_of_them=name == "complete.yaml"):
        if slip.section is None and f"profile: {slip.right}\n" not in FILES[name]:
            continue  # a name of the author's that nothing asks for may be any name
        with pytest.raises(PolicyFileError) as refused:
            load(name, slip.text)
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
        place = f"{name}:{slip.position.line}:{slip.position.column}: unknown_key: "
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


COLUMNS = "expected the keys of one mapping, and the dashes of one list, below each other"


def _shifted(line: str) -> Iterator[tuple[str, str]]:
    """The line with another indentation than it should have."""
    yield "deeper", f" {line}"
    yield "deeper", f"  {line}"
    if line.startswith("  "):
        yield "shallower", line[1:]
        yield "shallower", line[2:]
    yield "tab", f"\t{line.lstrip()}"


def _shows_at(shown: int, wrong: int, lines: list[str]) -> bool:
    """A wrong indentation shows at its line, next to it, or at a line that was its sibling."""
    columns = [len(line) - len(line.lstrip()) for line in (lines[shown - 1], lines[wrong - 1])]
    return abs(shown - wrong) <= 2 or columns[0] == columns[1]


@pytest.mark.parametrize("name", FILES)
def test_a_line_that_is_wrongly_indented_is_told_where_it_shows_and_in_plain_words(
    name: str,
) -> None:
    """A line that alone makes up its block may stand anywhere deeper: that is no mistake."""
    lines = FILES[name].split("\n")
    right = load(name, FILES[name]).spec
    tried = 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        for kind, shifted in _shifted(line):
            text = "\n".join([*lines[: number - 1], shifted, *lines[number:]])
            try:
                found = load(name, text)
            except PolicyFileError as error:
                problems = error.problems
            else:
                assert meaning(found.spec) == meaning(right), f"{kind}: {line!r} means else"
                continue
            tried += 1
            near = [one for one in problems if _shows_at(one.position.line, number, lines)]
            assert near, "\n".join(map(str, problems))
            for one in near:
                told = str(one)
                assert one.expected is not None, told
                assert "block" not in told and "YAML 1.2" not in told, told
                if one.code is ProblemCode.SYNTAX:
                    assert (": a tab; expected spaces" if kind == "tab" else COLUMNS) in told
            unknown = [str(one) for one in near if one.code is ProblemCode.UNKNOWN_KEY]
            if unknown:
                assert any("is it indented as it should be?" in told for told in unknown), unknown
    assert tried > 20


WRONG_VALUES = ("[[1]]", "{a: {b: c}}", "'?'", "", "-1", "yes")
FREE_TEXT = frozenset({"owner", "reason", "basic_user"})


def _values(node: YamlNode) -> Iterator[tuple[YamlNode, YamlNode]]:
    """Every key with its value, as the parser of another kind sees them."""
    for item in node.value if isinstance(node, MappingNode | SequenceNode) else ():
        if isinstance(item, tuple):
            yield item
            yield from _values(item[1])
        else:
            yield from _values(item)


@pytest.mark.parametrize("name", FILES)
def test_a_value_that_is_wrong_for_its_key_is_told_with_what_was_expected(name: str) -> None:
    text = FILES[name]
    tried = 0
    seen: set[str] = set()
    for key, value in _values(YAML(typ="safe", pure=True).compose(text)):
        start = value.start_mark.index
        end = start + len(text[start : value.end_mark.index].rstrip())
        some = WRONG_VALUES[tried % len(WRONG_VALUES) :][:1]
        for wrong in some if key.value in seen else WRONG_VALUES:
            if wrong == "'?'" and key.value in FREE_TEXT:
                continue
            with pytest.raises(PolicyFileError) as refused:
                load(name, f"{text[:start]}{wrong}{text[end:]}")
            lines = {key.start_mark.line + 1, value.start_mark.line + 1}
            told = [one for one in refused.value.problems if one.position.line in lines]
            assert told, (key.value, wrong, str(refused.value))
            assert all(one.expected for one in told), (key.value, wrong, str(refused.value))
            tried += 1
        seen.add(key.value)
    assert tried > 50
