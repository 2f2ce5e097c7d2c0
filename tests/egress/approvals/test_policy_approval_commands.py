"""Mirror of cli/policy_approval_commands.py: a team works with keys, approvals and checks."""

import json
from pathlib import Path

import pytest

from palyra_egress.cli.main import main
from tests.egress.approvals.people import Team
from tests.egress.policy.policy_program import run_policy


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def key_file(team: Team, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    path = team.root / "keys" / f"{name}.key"
    assert run_policy("key", "new", str(path), "--name", name) == 0
    row = capsys.readouterr().out
    assert row.startswith(f"  - {{name: {name}, key: ") and "PRIVATE" not in row
    with team.approvers.open("a") as file:
        file.write(row)
    return str(path)


def test_two_people_make_keys_approve_and_the_proxy_takes_the_policy(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.approvers.write_text("version: 1\napprovers:\n")
    keys = {name: key_file(team, name, capsys) for name in ("eva", "fin")}
    assert (team.root / "keys" / "eva.key").stat().st_mode & 0o777 == 0o600
    team.save(1)
    policy, approvers = str(team.policy), str(team.approvers)
    assert run_policy("approve", policy, "--key", keys["eva"], "--name", "eva") == 0
    assert run_policy("approvals", policy, "--approvers", approvers) == 1
    told = capsys.readouterr().out
    assert "eva as number 1" in told and "NOT approved: 1 of 2 approvals (eva)" in told
    assert run_policy("approve", policy, "--key", keys["fin"], "--name", "Fin") == 0
    assert run_policy("approvals", policy, "--approvers", approvers) == 0
    assert "approved: 2 of 2 approvals (eva, fin)" in capsys.readouterr().out
    live = team.started()
    assert live.poll() is not None, live.problem


def test_approvals_compare_with_the_state_of_a_proxy_or_with_another_file(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.accepted(1, 1)
    old = team.root / "old.yaml"
    old.write_bytes(team.policy.read_bytes())
    team.save(1, 2)
    team.approve(2, "ada")
    words = ["approvals", str(team.policy), "--approvers", str(team.approvers), "-o", "json"]
    for compared in (["--state-dir", str(team.state)], ["--replaces", str(old)]):
        assert run_policy(*words, *compared) == 1
        answer = json.loads(capsys.readouterr().out)
        assert (answer["needed"], answer["missing"], answer["approved_by"]) == (2, 1, ["ada"])
        assert any("https://h2.example:443/**" in row["message"] for row in answer["widening"])
    team.save()
    team.approve(2, "ada")
    assert run_policy(*words, "--replaces", str(old)) == 0
    assert json.loads(capsys.readouterr().out)["why"] == "it widens nothing"


def test_approve_shows_what_widens(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_file(team, "eva", capsys)
    old = team.root / "old.yaml"
    team.save(1)
    old.write_bytes(team.policy.read_bytes())
    team.save(1, 2)
    words = ["approve", str(team.policy), "--key", key, "--name", "eva", "--serial", "7"]
    assert run_policy(*words, "--replaces", str(old)) == 0
    told = capsys.readouterr().out
    assert "as number 7" in told and "widens: p: GET,HEAD https://h2.example" in told


def test_check_tells_whether_the_policy_is_approved(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.accepted(1, 1)
    words = ["check", str(team.policy), "--approvers", str(team.approvers)]
    words += ["--state-dir", str(team.state)]
    assert run_policy(*words) == 0
    assert "approved: 1 of 1 approval" not in (told := capsys.readouterr().out)
    assert "approved: 2 of 1 approval (ada, ben): it widens nothing" in told
    team.save(1, 2)
    assert run_policy(*words) == 1
    told = capsys.readouterr().out
    assert "NOT approved: 0 of 2 approvals" in told and "widens: p: GET,HEAD https://h2" in told
    assert run_policy(*words, "-o", "github") == 1
    assert "::error file=" in (told := capsys.readouterr().out) and "title=not_approved" in told
    assert run_policy(*words, "-o", "json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False and answer["approvals"]["missing"] == 2
    assert run_policy("check", str(team.policy)) == 0
    assert "its approvals were not looked at" in capsys.readouterr().err


def test_a_key_is_never_written_over(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    key = key_file(team, "eva", capsys)
    before = Path(key).read_bytes()
    assert run_policy("key", "new", key, "--name", "eva") == 2
    assert "is there already" in capsys.readouterr().err and Path(key).read_bytes() == before


def test_a_key_that_others_can_read_signs_nothing(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    key = key_file(team, "eva", capsys)
    Path(key).chmod(0o640)
    team.save(1)
    assert main(["policy", "approve", str(team.policy), "--key", key, "--name", "eva"]) == 2
    assert "mode 640 is too open" in capsys.readouterr().err and not team.approvals.exists()


def test_a_policy_that_is_not_good_is_not_approved(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    key = key_file(team, "eva", capsys)
    team.policy.write_text("version: 1\nname: x\nrule: []\n")
    assert run_policy("approve", str(team.policy), "--key", key, "--name", "eva") == 2
    assert "did you mean 'rules'?" in capsys.readouterr().err and not team.approvals.exists()


def test_an_approvers_file_that_a_proxy_would_refuse_is_said_so(
    team: Team, capsys: pytest.CaptureFixture[str]
) -> None:
    team.save(1)
    team.approvers.chmod(0o644)
    words = ["policy", "approvals", str(team.policy), "--approvers"]
    assert main([*words, str(team.approvers)]) == 1
    assert "a proxy would refuse this approvers file" in capsys.readouterr().err
    assert main([*words, str(team.root / "missing.yaml")]) == 2
    assert main([*words, str(team.approvers), "--replaces", str(team.root / "no.yaml")]) == 2
