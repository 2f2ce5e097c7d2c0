"""Rules, standing and checks, as a proxy tells them: in parts that fit, with nothing dropped
unseen."""

import pytest

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.load import load_policy
from palyra_egress.questions.answering import answer_to
from palyra_egress.questions.bundle import checked
from palyra_egress.questions.rules import rules_from
from palyra_egress.questions.standing import Loaded, standing_of
from palyra_fleet.wire.policy_models import (
    MAX_NAMED,
    AskCheck,
    AskExplain,
    AskReplay,
    AskRules,
    PolicyQuestion,
    PolicyText,
    RequestDescribed,
    RuleInForce,
)

BODY_BYTES = 64 * 1024
RULE = "  - {{id: r{n}, hosts: [{hosts}], methods: [GET], owner: o, reason: r}}\n"


def policy_of(text: str) -> CompiledPolicy:
    return load_policy(text.encode(), "policy.yaml")


def many_rules(count: int, hosts: int = 1) -> str:
    rules = "".join(
        RULE.format(n=n, hosts=", ".join(f"{'h' * 50}{n}-{m}.example" for m in range(hosts)))
        for n in range(count)
    )
    listed = ", ".join(f"r{n}" for n in range(count))
    return f"version: 1\nname: many\nrules:\n{rules}profiles: {{all: [{listed}]}}\n"


SMALL = policy_of(many_rules(1))


def test_rules_come_in_parts_that_fit_and_none_is_missing() -> None:
    loaded = Loaded(policy_of(many_rules(300, hosts=14)), 1)
    start: int | None = 0
    found: list[RuleInForce] = []
    parts = 0
    while start is not None:
        part = rules_from(loaded, start)
        assert len(part.model_dump_json().encode()) < BODY_BYTES
        found += part.rules
        start, parts = part.following, parts + 1
    assert [one.rule_id for one in found] == [f"r{n}" for n in range(300)]
    assert parts > 1
    assert {(len(one.hosts), one.hosts_in_all) for one in found} == {(MAX_NAMED, 14)}


def test_a_start_beyond_the_rules_is_the_end() -> None:
    part = rules_from(Loaded(SMALL, 1), 7)
    assert (part.rules, part.following) == ((), None)


def test_what_changed_is_told_once_and_what_does_not_fit_is_counted() -> None:
    after = policy_of(many_rules(400))
    told = rules_from(Loaded(after, 1, before=SMALL), 0)
    assert told.changes is not None
    assert all(one.widens for one in told.changes)
    assert len(told.changes) + told.changes_left_out >= 399
    assert rules_from(Loaded(after, 1, before=SMALL), 1).changes is None
    assert rules_from(Loaded(after, 1), 0).changes is None


def test_a_problem_that_is_about_no_line_is_told_as_it_is() -> None:
    standing = standing_of(Loaded(SMALL, 1, problem="0 of 2 approvals", signed=True))
    (problem,) = standing.problems
    assert (problem.message, problem.file, problem.line) == ("0 of 2 approvals", None, None)
    assert standing.signed
    assert standing_of(Loaded(SMALL, 1)).problems == ()


def bundle(**files: str) -> AskCheck:
    names = {name: name.replace("__", "/") + ".yaml" for name in files}
    return AskCheck(
        files=tuple(PolicyText(name=names[name], text=text) for name, text in files.items())
    )


def test_problems_of_a_bundle_have_the_places_of_its_files() -> None:
    top = many_rules(1).replace("name: many", "name: many\ninclude: [team/base.yaml]")
    found = checked(SMALL, bundle(egress=top, team__base="version: 1\nnmae: base\n"), 0)
    assert not found.good
    assert (found.problems[0].file, found.problems[0].line) == ("team/base.yaml", 2)
    assert "did you mean 'name'" in found.problems[0].message
    assert not any("palyra-check" in str(one) for one in found.problems)


@pytest.mark.parametrize("name", ["../x.yaml", "base.yaml", "/etc/passwd"])
def test_a_bundle_reaches_nothing_beyond_its_own_files(name: str) -> None:
    top = many_rules(1).replace("name: many", f"name: many\ninclude: [{name}]")
    found = checked(SMALL, bundle(egress=top), 0)
    assert not found.good
    assert found.checked_digest is None


def test_a_good_bundle_says_what_it_would_change_here() -> None:
    text = many_rules(2).encode()
    found = checked(SMALL, bundle(egress=text.decode()), 0)
    assert found.good
    assert found.checked_digest == load_policy(text, "x").digest
    assert found.changes is not None
    assert (found.changes[0].widens, found.changes[0].where) == (True, "egress.yaml:5")
    assert checked(SMALL, bundle(egress=many_rules(1)), 0).changes == ()


def test_every_answer_names_the_policy_it_is_about() -> None:
    request = RequestDescribed(url="https://no.example/")
    asks = (
        AskRules(),
        AskReplay(refused=()),
        AskExplain(profile="all", request=request),
        bundle(egress="version: 1"),
    )
    for ask in asks:
        question = PolicyQuestion(question_id="0" * 26, ask=ask)
        answer = answer_to(Loaded(SMALL, 1), question, 0)
        assert (answer.policy_digest, answer.answer.kind) == (SMALL.digest, ask.kind)


def test_a_path_that_is_no_text_is_told_all_the_same() -> None:
    loaded = Loaded(SMALL, 1, problem="/etc/\udcff.yaml: the policy file is gone")
    (problem,) = standing_of(loaded).problems
    assert problem.message == "/etc/\\udcff.yaml: the policy file is gone"
