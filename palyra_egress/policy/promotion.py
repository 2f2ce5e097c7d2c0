"""From observing to enforcing: what would break, and the edit that does it.

Input: the files of a policy that observes (as a whole, or with single rules), and entries of the
audit log. Output: a `Promotion`: the files as they would be, and every recorded request that passed
only because it was observed and that nothing explains. A request is explained if, with enforcement
on, a rule of the file allows it, a deny rule refuses it, or a test of the file is about a request
of this kind (same profile, method, scheme, host, port and reason) that is refused then. So an
explanation is always something written in the file, reviewed with it, and checked whenever it is
loaded. While the file observes, such a test expects `observe`; promoting it turns that into `deny`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.document import read_document
from palyra_egress.policy.errors import Problems
from palyra_egress.policy.load import load_sources
from palyra_egress.policy.policy_tests import judge_test, test_request
from palyra_egress.policy.recorded import Answer, Recorded, judge_again, read_recorded
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest
from palyra_egress.verdict import Verdict
from palyra_fleet.strict_yaml.document import Mapping as MappingNode
from palyra_fleet.strict_yaml.document import Node, Position, Scalar
from palyra_fleet.strict_yaml.document import Sequence as SequenceNode

type Sources = tuple[tuple[str, bytes], ...]
"""(name, bytes) of every file of a policy, in reading order."""


class _Edit(NamedTuple):
    """A word at its place in the file of this number, and the word to put there."""

    number: int
    position: Position
    old: str
    new: str


class NothingToPromote(Exception):
    """The file, or the rule, does not observe."""


@dataclass(frozen=True, slots=True)
class Unexplained:
    """Requests that would be refused once the policy enforces, and that nobody accounted for."""

    profile: str
    target: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Promotion:
    """`sources` are all files of the policy, in reading order, as promoted; `evidence` counts the
    recorded requests that were looked at; none is no evidence."""

    sources: Sources
    evidence: int
    explained: int
    unexplained: tuple[tuple[Unexplained, int], ...]

    @property
    def may_be_promoted(self) -> bool:
        return self.evidence > 0 and not self.unexplained


def _replace_in(source: bytes, edits: list[_Edit]) -> bytes:
    """The text with each word at its place replaced, from the end so that places stay true."""
    lines = source.decode("utf-8").split("\n")
    for _, position, old, new in sorted(edits, reverse=True):
        line = lines[position.line - 1] if position.line <= len(lines) else ""
        start = position.column - 1
        start += line[start : start + 1] in {"'", '"'}
        if not line.startswith(old, start):
            raise NothingToPromote(f"line {position.line} does not say {old!r} where it should")
        lines[position.line - 1] = line[:start] + new + line[start + len(old) :]
    return "\n".join(lines).encode()


def _replace(sources: Sources, edits: list[_Edit]) -> Sources:
    return tuple(
        (name, _replace_in(source, [edit for edit in edits if edit.number == number]))
        for number, (name, source) in enumerate(sources)
    )


def _scalar(node: Node | None, name: str) -> Scalar | None:
    """The single value under a key of a mapping."""
    entry = node.entries.get(name) if isinstance(node, MappingNode) else None
    return entry[1] if entry is not None and isinstance(entry[1], Scalar) else None


def _items(root: Node | None, name: str) -> tuple[Node, ...]:
    entry = root.entries.get(name) if isinstance(root, MappingNode) else None
    return entry[1].items if entry is not None and isinstance(entry[1], SequenceNode) else ()


def _edits(roots: Sequence[Node | None], rule_id: str | None) -> list[_Edit]:
    """Where the files say that they observe."""
    edits: list[_Edit] = []
    for number, root in enumerate(roots):
        mode = _scalar(root, "mode")
        if rule_id is None and mode is not None and mode.value == "observe":
            edits.append(_Edit(number, mode.position, "observe", "enforce"))
        for item in _items(root, "rules"):
            named, observe = _scalar(item, "id"), _scalar(item, "observe")
            is_meant = rule_id is None or (named is not None and named.text == rule_id)
            if is_meant and observe is not None and observe.value is True:
                edits.append(_Edit(number, observe.position, "true", "false"))
    return edits


def _test_edits(roots: Sequence[Node | None], policy: CompiledPolicy) -> list[_Edit]:
    """Tests that expect what the promoted policy refuses to be observed: now they expect `deny`."""
    edits: list[_Edit] = []
    items = [(number, item) for number, root in enumerate(roots) for item in _items(root, "tests")]
    for (number, item), test in zip(items, policy.spec.tests, strict=True):
        expect, answer = _scalar(item, "expect"), judge_test(policy, test)
        is_refused = isinstance(answer, Verdict) and not answer.allowed
        if expect is not None and test.expect == "observe" and is_refused:
            edits.append(_Edit(number, expect.position, "observe", "deny"))
    return edits


def _kind(request: EgressRequest, reason: Reason) -> tuple[object, ...]:
    profile = request.requester.profile
    return (profile, request.method, request.scheme, request.host, request.port, reason)


def _expected_refusals(policy: CompiledPolicy) -> set[tuple[object, ...]]:
    """Kinds of request that the file's tests say are refused."""
    kinds: set[tuple[object, ...]] = set()
    for test in policy.spec.tests:
        request, answer = test_request(test), judge_test(policy, test)
        if request is not None and isinstance(answer, Verdict) and not answer.allowed:
            kinds.add(_kind(request, answer.reason))
    return kinds


def _observed(
    entries: Iterable[Mapping[str, object]], rule_id: str | None
) -> Iterable[tuple[Recorded, bool]]:
    """Recorded requests, and whether they passed only because they were observed."""
    for entry in entries:
        recorded = read_recorded(entry)
        if isinstance(recorded, Recorded):
            is_meant = rule_id is None or recorded.outcome.rule_id == rule_id
            yield recorded, is_meant and recorded.outcome.answer is Answer.OBSERVED


def promote(
    sources: Sources, file: str, entries: Iterable[Mapping[str, object]], rule_id: str | None = None
) -> Promotion:
    """The promoted files and what stands in the way; raises `PolicyFileError`, `NothingToPromote`.

    `sources` are (name, bytes) in reading order, `file` the name of the outermost. Without
    `rule_id` everything in the files that observes is promoted.
    """
    load_sources(sources, file)
    roots = [read_document(source, Problems(file)) for _, source in sources]
    edits = _edits(roots, rule_id)
    if not edits:
        what = "the policy" if rule_id is None else f"the rule {rule_id}"
        raise NothingToPromote(f"{file}: {what} does not observe")
    enforcing = load_sources(_replace(sources, edits), file, with_tests=False)
    promoted = _replace(sources, [*edits, *_test_edits(roots, enforcing)])
    policy = load_sources(promoted, file)
    refusals = _expected_refusals(policy)
    unexplained: Counter[Unexplained] = Counter()
    evidence = explained = 0
    for recorded, was_observed in _observed(entries, rule_id):
        evidence += recorded.profile in policy.profiles
        if not was_observed:
            continue
        now = judge_again(policy, recorded)
        is_explained = (
            now.answer is not Answer.REFUSED
            or now.reason is Reason.HOST_DENIED
            or _kind(recorded.request, now.reason) in refusals
        )
        if is_explained:
            explained += 1
        else:
            unexplained[Unexplained(recorded.profile, recorded.target, now.reason)] += 1
    order = sorted(unexplained.items(), key=lambda item: (-item[1], item[0].target))
    return Promotion(promoted, evidence, explained, tuple(order))
