"""`palyra-fleet approval`: files of rules checked and explained without a fleet."""

import json
from pathlib import Path

import pytest

from palyra_fleet.cli.approval_commands import RULE_COLUMNS
from palyra_fleet.cli.main import main
from palyra_fleet.cli.output import FORMS, show_many
from palyra_fleet.cli.trouble_words import trouble_of
from palyra_fleet.client import FleetProblem
from palyra_fleet.leases.approval_file import TITLE
from palyra_fleet.wire.approval_models import ApprovalRuleView
from tests.fleet.leases.test_approval_file import CASES, GOOD

ASKED = ("--tool", "sh", "--profile", "ci", "--identity", "worker:1", "--launcher", "local")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD + CASES)
    return path


def test_a_good_file_is_good_and_a_bad_one_is_told_line_by_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["approval", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: good: 1 rules, 2 cases\n"
    bad = file.with_name("bad.yaml")
    bad.write_text(GOOD.replace("owner", "ownr").replace("15m", "15"))
    assert main(["approval", "check", str(bad), str(file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(f"{bad}:") for line in lines] == [True, True, False]


@pytest.mark.parametrize(
    ("run", "at", "code", "said"),
    [
        ("nightly-1", "2027-01-01T00:00:00Z", 0, "nightly: approves, for 900 s"),
        ("daily-1", "2027-01-01T00:00:00Z", 1, "nightly: no: runs does not fit"),
        ("nightly-1", "2027-03-31T18:00:00Z", 1, "nightly: no: until does not fit"),
        ("nightly-1", "yesterday", 2, ""),
    ],
)
def test_it_is_explained_which_rule_approves_and_why_no_other(
    file: Path, capsys: pytest.CaptureFixture[str], run: str, at: str, code: int, said: str
) -> None:
    command = ["approval", "explain", str(file), "--run-id", run, *ASKED, "--at", at]
    assert main(command) == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("form", FORMS)
def test_the_rules_in_force_are_shown_in_every_form(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`show_many` of what `approval list` shows, with its columns."""
    found = ApprovalRuleView(
        rule_id="nightly",
        owner="platform",
        until_unix_ms=1,
        at_once=1,
        most_at_once=2,
        in_the_last_hour=3,
        most_in_an_hour=4,
        rules_sha256="f" * 64,
    )
    show_many((found,), form, RULE_COLUMNS)
    assert "nightly" in capsys.readouterr().out


@pytest.mark.parametrize("reason", ["grant.rule_limit", "fleet.capacity_leases"])
def test_a_limit_that_is_reached_is_not_told_as_wrong_credentials(reason: str) -> None:
    told = str(trouble_of(FleetProblem(429, reason, "two runs at once")))
    assert told.startswith("the fleet refused\n  why: two runs at once")


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["approval", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == TITLE


def test_a_worker_that_asks_a_rule_names_tool_and_profile(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ca = str(tmp_path / "ca.pem")
    command = ["worker", "run", "--proxy", "127.0.0.1:1", "--run-id", "run-1", "--tool", "sh"]
    vouched = ["--launcher-key", str(tmp_path / "key"), "--ca-bundle", ca, "--ca", ca]
    assert main([*command, *vouched, "--", "true"]) == 2
    assert "--tool and --profile belong together" in capsys.readouterr().err
