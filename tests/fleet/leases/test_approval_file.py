"""The file of approval rules: every mistake at once, at its line and column."""

import pytest

from palyra_fleet.leases.approval_file import (
    ApprovalFileError,
    ReadApprovals,
    read_approvals,
    schema,
    unix_ms_of,
)

GOOD = """\
version: 1
rules:
  - id: nightly
    owner: platform team
    reason: nightly builds
    until: 2027-03-31T18:00:00Z
    who:
      launchers: [local]
      identities: ["worker:*"]
    tools: [sh]
    runs: ["nightly-*"]
    profiles: [ci]
    limits: {lease: 15m, uses_per_hour: 30, at_once: 4}
"""
WHO = 'who:\n      launchers: [local]\n      identities: ["worker:*"]\n'
CASES = """\
tests:
  - {run: nightly-1, tool: sh, profile: ci, identity: "worker:x", launcher: local, expect: nightly}
  - {run: daily-1, tool: sh, profile: ci, identity: "worker:x", launcher: local, expect: none}
"""


def read(text: str) -> ReadApprovals:
    return read_approvals(text.encode(), "rules.yaml")


def told(text: str | bytes) -> list[str]:
    source = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(ApprovalFileError) as refused:
        read_approvals(source, "rules.yaml")
    return str(refused.value).splitlines()


def test_a_good_file_is_read_as_it_says() -> None:
    found = read(GOOD + CASES)
    (rule,) = found.rules.rules
    assert (rule.rule_id, rule.lease_ms, rule.uses_per_hour, rule.at_once) == (
        "nightly",
        900_000,
        30,
        4,
    )
    assert rule.until_unix_ms == 1_806_516_000_000
    assert (rule.launchers, rule.identities, rule.machines) == (("local",), ("worker:*",), ())
    assert not rule.read_only
    assert found.cases == 2
    assert found.rules.file_sha256 != read(GOOD).rules.file_sha256


def test_a_rule_may_let_runs_only_read_and_its_cases_say_so() -> None:
    reading = GOOD + "    read_only: true\n"
    case = '{run: nightly-1, tool: sh, profile: ci, identity: "worker:x", launcher: local, '
    cases = f"tests:\n  - {case}read_only: true, expect: nightly}}\n  - {case}expect: none}}\n"
    (rule,) = read(reading + cases).rules.rules
    assert rule.read_only
    (wrong,) = told(GOOD + "    read_only: maybe\n")
    assert wrong.endswith("bad_value: rules.0.read_only: expected true or false")


def test_no_rules_approve_nothing() -> None:
    assert read("version: 1\nrules: []\n").rules.rules == ()


def test_every_mistake_is_told_at_once_and_where_it_stands() -> None:
    wrong = (
        GOOD.replace("owner:", "ownr:")
        .replace("launchers:", "launcher:")
        .replace("15m", "900")
        .replace("[sh]", "[]")
        .replace("18:00:00Z", "18:00:00")
    )
    places = [line.split(" ")[0:2] for line in told(wrong)]
    assert places == [
        ["rules.yaml:4:5:", "unknown_key:"],
        ["rules.yaml:6:12:", "bad_value:"],
        ["rules.yaml:8:7:", "unknown_key:"],
        ["rules.yaml:10:12:", "bad_value:"],
        ["rules.yaml:13:21:", "bad_value:"],
    ]
    assert told(wrong)[0].endswith("did you mean 'owner'?")
    assert told(wrong)[2].endswith("did you mean 'launchers'?")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: 2", "1:10: bad_value: version:"),
        ("    owner: platform team\n", "", "3:5: missing_key: the key 'owner' is missing"),
        (WHO, "who: {}\n", "7:10: missing_key: nobody"),
        ('"worker:*"', '"*"', "9:20: bad_value: rules.0.who.identities.0: expected something"),
        ('"nightly-*"', '"a*b*"', "11:12: bad_value: rules.0.runs.0:"),
        ("reason: nightly builds", "reason: no", "5:13: ambiguous_value:"),
        ("lease: 15m", "lease: 8d", "13:21: bad_value: rules.0.limits.lease: expected between"),
        ("at_once: 4", "at_once: 0", "13:54: bad_value:"),
        ("uses_per_hour: 30", "uses_per_hour: true", "13:41: bad_value:"),
        ("id: nightly", "id: none", "3:9: bad_value: 'none' is no rule's name"),
        ("[sh]", "&a [sh]", "10:12: alias:"),
        ("[sh]", "!!set [sh]", "10:12: tag:"),
        ("version: 1", "version: 1\nversion: 1", "2:1: duplicate_key:"),
        ("2027-03-31", "2027-02-31", "6:12: bad_value: rules.0.until: expected a time"),
        ("platform", "plat\u202eform", "4:16: hidden_sign:"),
        ("[ci]", "[ci", "syntax:"),
    ],
)  # fmt: skip
def test_one_mistake_is_told_where_it_is(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    lines = told(GOOD.replace(old, new, 1))
    assert any(expected in line for line in lines), lines


def test_two_rules_of_one_name_are_refused() -> None:
    rule = GOOD.split("rules:\n")[1]
    assert told(GOOD + rule) == ["rules.yaml:14:9: duplicate_id: a rule 'nightly' stands above"]


@pytest.mark.parametrize(
    "source", [b"", b"\xff", b"- 1\n", b"a: 1\n---\nb: 2\n", b"x" * (256 * 1024 + 1)]
)
def test_what_is_no_such_file_is_refused(source: bytes) -> None:
    assert told(source)


def test_a_case_that_comes_out_otherwise_refuses_the_file() -> None:
    wrong = CASES.replace("expect: none", "expect: nightly")
    (line,) = told(GOOD + wrong)
    assert line.startswith("rules.yaml:16:")
    assert "test_failed: this is approved by 'none'; expected 'nightly'" in line


def test_a_case_at_a_time_sees_the_end_of_a_rule() -> None:
    late = CASES.replace("expect: nightly", 'at: "2027-03-31T18:00:00Z", expect: none')
    assert read(GOOD + late).cases == 2


@pytest.mark.parametrize(
    ("text", "unix_ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.250Z", 250),
        ("1970-01-01T00:00:00", None),
        ("1970-01-01", None),
        ("1970-13-01T00:00:00Z", None),
    ],
)
def test_a_time_has_an_offset(text: str, unix_ms: int | None) -> None:
    assert unix_ms_of(text) == unix_ms


def test_the_schema_names_the_keys_of_the_file_and_no_others() -> None:
    made = schema()
    assert made["additionalProperties"] is False
    assert set(made["properties"]) == {"version", "rules", "tests"}  # type: ignore[call-overload]
