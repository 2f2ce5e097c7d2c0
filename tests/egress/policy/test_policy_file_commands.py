"""Mirror of cli/policy_file_commands.py and cli/policy_answers.py: answers, forms, exit codes."""

import json
from pathlib import Path

import pytest

from tests.egress.policy.policy_program import run_policy
from tests.egress.policy.policy_text import HEAD, POLICIES, SAMPLES

AT = ["--at", "2026-11-23T00:00:00Z"]
UNOWNED = f"{HEAD}rules: [{{id: r, hosts: [a.test]}}]\nprofiles: {{p: [r]}}\n"
WIDER = UNOWNED.replace("[a.test]", "[.a.test]")

type Capture = pytest.CaptureFixture[str]


@pytest.fixture
def unowned(tmp_path: Path) -> str:
    path = tmp_path / "unowned.yaml"
    path.write_text(UNOWNED)
    return str(path)


@pytest.fixture
def wider(tmp_path: Path) -> str:
    path = tmp_path / "wider.yaml"
    path.write_text(WIDER)
    return str(path)


@pytest.fixture
def broken(tmp_path: Path) -> str:
    path = tmp_path / "broken.yaml"
    path.write_text(f"{HEAD}rule: []\n")
    return str(path)


def test_the_sample_policies_need_no_decision(capsys: Capture) -> None:
    assert run_policy("lint", *map(str, SAMPLES), *AT) == 0
    assert f"{len(SAMPLES)} files: 0 to decide" in capsys.readouterr().out


def test_lint_exits_with_one_for_a_warning_and_two_for_a_file_that_does_not_load(
    unowned: str, broken: str, capsys: Capture
) -> None:
    assert run_policy("lint", unowned, *AT) == 1
    assert f"{unowned}:3:9: warning: rule_unowned: the rule r has no owner" in (
        capsys.readouterr().out
    )
    assert run_policy("lint", unowned, broken, *AT, "-o", "json") == 2
    answer = json.loads(capsys.readouterr().out)
    levels = {row["code"]: row["level"] for row in answer["findings"]}
    assert levels["unknown_key"] == "error" and levels["rule_unowned"] == "warning"
    assert answer["ok"] is False and answer["ignored"] == 0


@pytest.mark.parametrize(
    "command", [["lint", "unowned"], ["check", "unowned"], ["check", "broken"], ["test", "broken"]]
)
def test_findings_are_told_to_github_and_as_sarif(
    command: list[str], unowned: str, broken: str, capsys: Capture
) -> None:
    words = [command[0], {"unowned": unowned, "broken": broken}[command[1]], *AT, "-o"]
    code = run_policy(*words, "github")
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(
        line.startswith(("::warning file=", "::error file=", "::notice file=")) for line in lines
    )
    assert run_policy(*words, "sarif") == code
    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert len(run["results"]) == len(lines)


def test_diff_names_what_is_newly_allowed_and_no_widen_says_no(
    unowned: str, wider: str, capsys: Capture
) -> None:
    assert run_policy("diff", unowned, wider) == 0
    told = capsys.readouterr().out
    assert told.startswith("newly allowed (1)\n  + p: GET,HEAD https://*.a.test:443/**  [")
    assert run_policy("diff", unowned, wider, "--no-widen") == 1
    assert run_policy("diff", wider, unowned, "--no-widen") == 0
    assert run_policy("diff", unowned, unowned, "--no-widen") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no change"


@pytest.mark.parametrize("form", ["json", "github", "sarif"])
def test_diff_answers_programs_too(form: str, unowned: str, wider: str, capsys: Capture) -> None:
    assert run_policy("diff", unowned, wider, "--no-widen", "-o", form) == 1
    told = capsys.readouterr().out
    if form == "json":
        answer = json.loads(told)
        assert (answer["same"], answer["widens"]) == (False, True)
        assert answer["changes"][0]["code"] == "newly_allowed" and answer["changes"][0]["widens"]
    elif form == "github":
        assert told.startswith(f"::warning file={wider},line=3,col=9,title=newly_allowed::newly")
    else:
        assert json.loads(told)["runs"][0]["results"][0]["ruleId"] == "newly_allowed"


def test_diff_of_a_file_that_does_not_load_is_yours_to_fix(unowned: str, broken: str) -> None:
    assert run_policy("diff", unowned, broken) == 2
    assert run_policy("diff", "absent.yaml", unowned, "-o", "json") == 2


def test_fmt_prints_checks_and_writes(unowned: str, capsys: Capture) -> None:
    untidy = UNOWNED.replace("a.test", "A.test")
    Path(unowned).write_text(untidy)
    Path(unowned).chmod(0o640)
    assert run_policy("fmt", unowned) == 0
    assert capsys.readouterr().out == f"{UNOWNED}"
    assert run_policy("fmt", "--check", unowned) == 1
    assert Path(unowned).read_text() == untidy
    assert run_policy("fmt", "--write", unowned) == 0
    assert Path(unowned).read_text() == UNOWNED
    assert Path(unowned).stat().st_mode & 0o777 == 0o640
    assert [path.name for path in Path(unowned).parent.iterdir()] == ["unowned.yaml"]
    assert run_policy("fmt", "--check", unowned) == 0


def test_fmt_leaves_a_file_alone_that_does_not_load(broken: str, capsys: Capture) -> None:
    before = Path(broken).read_bytes()
    assert run_policy("fmt", "--write", broken) == 2
    assert Path(broken).read_bytes() == before and "unknown_key" in capsys.readouterr().err


def test_fmt_writes_through_a_link_and_keeps_the_link(unowned: str, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(unowned)
    Path(unowned).write_text(UNOWNED.replace("a.test", "A.test"))
    assert run_policy("fmt", "--write", str(link)) == 0
    assert link.is_symlink() and Path(unowned).read_text() == UNOWNED


def test_schema_prints_what_is_committed(capsys: Capture) -> None:
    assert run_policy("schema") == 0
    committed = POLICIES / "schema" / "egress-policy.v1.schema.json"
    assert capsys.readouterr().out == committed.read_text()


_ON_FILES = ["check", "test", "lint", "fmt", "diff", "schema", "import"]
COMMANDS = [*_ON_FILES, "explain", "judge", "replay", "suggest", "promote"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        run_policy(command, "--help")
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out
