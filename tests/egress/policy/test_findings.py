"""Mirror of policy/findings.py: the same findings for people, programs, GitHub and SARIF."""

import json

from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.policy.errors import Problem, ProblemCode
from palyra_egress.policy.findings import (
    Finding,
    as_github,
    as_rows,
    as_sarif,
    as_text,
    finding_of,
)
from palyra_egress.policy.lint_codes import Level
from palyra_fleet.strict_yaml.document import Position

WARNING = Finding(
    "policies/a b.yaml", Position(3, 7), Level.WARNING, "rule_expired", "the rule, r", "a: 100%"
)
IGNORED = Finding(
    "/etc/p.yaml", Position(), Level.NOTE, "private_range", "opens", ignored="the mirror"
)


def test_a_problem_of_a_file_is_an_error_and_reads_as_before() -> None:
    problem = Problem("f", Position(1, 2), ProblemCode.UNKNOWN_KEY, "x", "y", "z")
    assert str(finding_of(problem)) == str(problem)
    assert finding_of(problem).counts


def test_text_and_github_leave_out_what_is_ignored_and_json_keeps_it() -> None:
    told = "policies/a b.yaml:3:7: warning: rule_expired: the rule, r; expected a: 100%"
    assert as_text([WARNING, IGNORED]) == [told]
    assert as_github([WARNING, IGNORED]) == [
        "::warning file=policies/a b.yaml,line=3,col=7,title=rule_expired::"
        "the rule, r; expected a: 100%25"
    ]
    assert [row["ignored"] for row in as_rows([WARNING, IGNORED])] == [None, "the mirror"]


def test_notes_and_ignored_findings_ask_for_no_decision() -> None:
    note = Finding("f", Position(), Level.NOTE, "c", "m")
    assert WARNING.counts and not IGNORED.counts and not note.counts


def test_sarif_has_what_the_standard_requires() -> None:
    log = json.loads(as_sarif([WARNING, IGNORED], {"rule_expired": "the rule has expired"}))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    [run] = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "palyra-egress"
    assert [rule["id"] for rule in driver["rules"]] == ["private_range", "rule_expired"]
    assert driver["rules"][1]["shortDescription"]["text"] == "the rule has expired"
    first, second = run["results"]
    assert driver["rules"][first["ruleIndex"]]["id"] == first["ruleId"] == "rule_expired"
    assert first["level"] == "warning" and first["suppressions"] == []
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "policies/a%20b.yaml"
    assert place["region"] == {"startLine": 3, "startColumn": 7}
    assert second["suppressions"] == [{"kind": "inSource", "justification": "the mirror"}]
    assert second["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == (
        "file:///etc/p.yaml"
    )


def test_sarif_of_nothing_is_a_run_without_results() -> None:
    [run] = json.loads(as_sarif([], {}))["runs"]
    assert run["results"] == [] and run["tool"]["driver"]["rules"] == []


@given(st.text(), st.text())
def test_no_text_of_a_policy_starts_a_second_workflow_command(message: str, file: str) -> None:
    finding = Finding(file, Position(), Level.ERROR, "c", message)
    [line] = as_github([finding])
    assert "\n" not in line and "\r" not in line
    assert line.startswith("::error file=") and line.count("::", 0, line.index("title=")) == 1
