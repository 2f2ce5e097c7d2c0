"""Mirror of cli/policy_audit_commands.py: recorded traffic on the command line."""

import json
from pathlib import Path

import pytest

from palyra_egress.policy.load import load_policy
from palyra_fleet.cli.trouble import ExitCode, Trouble
from tests.egress.policy.policy_program import run_policy
from tests.egress.policy.policy_text import HEAD
from tests.egress.policy.recorded_traffic import early, entry, write_log

OLD = f"{HEAD}mode: observe\nrules: [{{id: r, hosts: [a.test]}}]\nprofiles: {{p: [r]}}\n"
NEW = OLD.replace("mode: observe\n", "")

type Capture = pytest.CaptureFixture[str]


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(OLD)
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    observing = load_policy(OLD.encode(), "policy.yaml")
    texts = ["GET https://a.test/", "PUT https://a.test/x", "PUT https://a.test/x"]
    entries = [*(entry(observing, text) for text in texts), early()]
    return write_log(tmp_path / "audit.jsonl", entries)


def test_replay_tells_what_breaks_with_counts_and_what_was_not_judged(
    policy_file: Path, log: Path, capsys: Capture
) -> None:
    policy_file.write_text(NEW)
    words = ["replay", "--audit", str(log), "--policy", str(policy_file)]
    assert run_policy(*words) == 0
    told = capsys.readouterr()
    assert "BREAKS        2 x p: PUT https://a.test:443/x" in told.out
    assert "observed method_not_allowed → refused method_not_allowed  [r]" in told.out
    assert "2 change, 1 stay the same, 2 would break" in told.out
    assert "1 refused before a request could be read" in told.out
    assert "queries are not recorded" in told.err
    assert run_policy(*words, "--fail-on-change", "-o", "json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["broken"], answer["same"], answer["not_judged"]) == (2, 1, {"early": 1})
    assert answer["groups"][0]["count"] == 2 and answer["groups"][0]["breaks"]


def test_replay_says_when_it_shows_only_some_groups(
    policy_file: Path, log: Path, capsys: Capture
) -> None:
    policy_file.write_text(NEW)
    words = ["--audit", str(log), "--policy", str(policy_file), "--limit", "0"]
    assert run_policy("replay", *words) == 0
    assert "… and 1 more groups" in capsys.readouterr().out


def test_suggest_prints_rules_and_writes_nothing(
    policy_file: Path, log: Path, capsys: Capture
) -> None:
    assert run_policy("suggest", "--audit", str(log), "--policy", str(policy_file)) == 0
    told = capsys.readouterr()
    assert "  - id: suggested-a.test\n" in told.out and "# owner: " in told.out
    assert "1 recorded requests are allowed" in told.err
    assert policy_file.read_text() == OLD


def test_promote_refuses_and_lists_what_is_unexplained(
    policy_file: Path, log: Path, capsys: Capture
) -> None:
    words = ["promote", str(policy_file), "--audit", str(log), "--write"]
    assert run_policy(*words) == 1
    assert "2 x p: PUT https://a.test:443/x  method_not_allowed" in capsys.readouterr().out
    assert policy_file.read_text() == OLD
    explained = f"{OLD}tests: [{{profile: p, request: PUT https://a.test/, expect: observe}}]\n"
    policy_file.write_text(explained)
    assert run_policy(*words[:-1]) == 0
    assert policy_file.read_text() == explained, "without --write nothing is written"
    assert run_policy(*words) == 0
    assert policy_file.read_text() == explained.replace("mode: observe", "mode: enforce").replace(
        "expect: observe", "expect: deny"
    )
    assert run_policy(*words) == 2, "it does not observe any more"


def test_promote_without_a_verdict_of_this_policy_is_no(
    policy_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    log = write_log(tmp_path / "empty.jsonl", [early()])
    assert run_policy("promote", str(policy_file), "--audit", str(log)) == 1
    assert "no verdict for a profile of this policy" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["replay", "suggest", "promote"])
def test_a_log_that_was_changed_or_is_not_there_decides_nothing(
    command: str, policy_file: Path, log: Path
) -> None:
    words = [command, "--audit", str(log)]
    words += [str(policy_file)] if command == "promote" else ["--policy", str(policy_file)]
    log.write_bytes(log.read_bytes().replace(b"a.test", b"b.test", 1))
    with pytest.raises(Trouble) as changed:
        run_policy(*words)
    assert changed.value.exit_code is ExitCode.NO
    log.unlink()
    with pytest.raises(Trouble) as gone:
        run_policy(*words)
    assert gone.value.exit_code is ExitCode.YOURS


@pytest.mark.parametrize("command", ["replay", "suggest", "promote"])
def test_a_policy_that_does_not_load_is_yours_to_fix(
    command: str, policy_file: Path, log: Path
) -> None:
    policy_file.write_text("version: 1\n")
    words = [command, "--audit", str(log)]
    words += [str(policy_file)] if command == "promote" else ["--policy", str(policy_file)]
    assert run_policy(*words) == 2


def test_what_a_worker_put_into_a_path_cannot_move_the_cursor_of_a_terminal(
    policy_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    old = load_policy(NEW.encode(), "policy.yaml")
    hostile = {**entry(old, "GET https://b.test/"), "target": "https://b.test:443/\x9b2J\u202e"}
    log = write_log(tmp_path / "hostile.jsonl", [hostile])
    for form in ("text", "json"):
        words = ["--audit", str(log), "--policy", str(policy_file), "-o", form]
        assert run_policy("replay", *words) == 0
        told = capsys.readouterr().out
        assert "b.test" in told and "\x9b" not in told and "\u202e" not in told
