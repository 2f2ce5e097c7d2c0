"""What the `policy` commands say of policies of several files."""

import json
from pathlib import Path

import pytest

from palyra_egress.policy.load import load_policy_file
from tests.egress.policy.policy_program import run_policy
from tests.egress.policy.recorded_traffic import entry, write_log
from tests.egress.policy.test_include import BASE, OUTER, TEAM, three

type Capture = pytest.CaptureFixture[str]
AT = ("--at", "2027-01-01T00:00:00Z")


def test_check_prints_the_files_in_their_order(tmp_path: Path, capsys: Capture) -> None:
    path = three(tmp_path)
    assert run_policy("check", str(path), *AT) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "files, in the order they are read:",
        f"  1. {tmp_path}/base.yaml",
        f"  2. {tmp_path}/team/rules.yaml",
        f"  3. {path}",
    ]
    assert "2 rules, 1 profiles, 1 tests" in lines[4]
    assert run_policy("check", str(path), *AT, "-o", "json") == 0
    assert [Path(file).name for file in json.loads(capsys.readouterr().out)["files"]] == [
        "base.yaml",
        "rules.yaml",
        "outer.yaml",
    ]


def test_findings_name_their_files_in_reading_order(tmp_path: Path, capsys: Capture) -> None:
    path = three(tmp_path, outer=OUTER.replace("api]}", "api], q: []}"))
    assert run_policy("lint", str(path), *AT, "-o", "json") == 1
    rows = json.loads(capsys.readouterr().out)["findings"]
    places = [(Path(row["file"]).name, row["line"]) for row in rows]
    order = ["base.yaml", "rules.yaml", "outer.yaml"]
    assert places == sorted(places, key=lambda place: (order.index(place[0]), place[1]))
    named = {(row["code"], row["subject"], Path(row["file"]).name) for row in rows}
    assert {
        ("rule_unowned", "packages", "base.yaml"),
        ("rule_unowned", "api", "rules.yaml"),
        ("profile_empty", "q", "outer.yaml"),
    } <= named


def test_an_ignore_holds_for_findings_in_other_files(tmp_path: Path, capsys: Capture) -> None:
    ignore = "{code: rule_unowned, rule: packages, reason: x, until: 2028-01-01T00:00:00Z}"
    path = three(tmp_path, outer=f"{OUTER}lint: {{ignore: [{ignore}]}}\n")
    run_policy("lint", str(path), *AT)
    out = capsys.readouterr().out
    assert "rule packages has no owner" not in out and "rule api has no owner" in out
    assert "ignore_unused" not in out and "1 ignored" in out


def test_splitting_a_policy_into_files_changes_no_meaning(tmp_path: Path, capsys: Capture) -> None:
    path = three(tmp_path)
    whole = tmp_path / "whole.yaml"
    whole.write_text("""\
version: 1
name: service
limits: {max_response_bytes: 1MiB}
rules:
  - {id: packages, hosts: [packages.example]}
  - {id: api, hosts: [api.example, x.paste.example]}
deny:
  - {id: paste, hosts: [.paste.example], reason: exfiltration}
violations: {quarantine: [metadata_target, private_target]}
tests:
  - {profile: p, request: GET https://api.example/, expect: allow}
profiles: {p: [packages, api]}
""")
    assert run_policy("diff", str(whole), str(path), "--no-widen") == 0
    assert capsys.readouterr().out == "no change\n"


def test_a_change_names_the_included_file_it_is_in(tmp_path: Path, capsys: Capture) -> None:
    old = three(tmp_path / "old")
    new = three(
        tmp_path / "new", team__rules=TEAM.replace("[api.example", "[api.example, b.example")
    )
    assert run_policy("diff", str(old), str(new), "--no-widen") == 1
    assert f"[{new.parent}/team/rules.yaml:4]" in capsys.readouterr().out


def test_fmt_formats_one_file_and_keeps_its_include(tmp_path: Path, capsys: Capture) -> None:
    path = three(tmp_path, outer=OUTER.replace("name: service\n", "") + "name: service\n")
    assert run_policy("fmt", str(path)) == 0
    assert capsys.readouterr().out == OUTER
    assert run_policy("fmt", "--write", str(path)) == 0
    assert path.read_text() == OUTER
    assert (tmp_path / "base.yaml").read_text() == BASE, "one file is formatted, not what it names"


def test_fmt_formats_a_file_that_does_not_stand_alone(tmp_path: Path) -> None:
    """Its test names a profile of the file that includes it."""
    team = three(tmp_path).parent / "team/rules.yaml"
    assert run_policy("fmt", "--write", str(team)) == 0
    assert run_policy("fmt", "--check", str(team)) == 0
    assert run_policy("check", str(tmp_path / "outer.yaml")) == 0
    team.write_text(TEAM.replace("hosts", "host"))
    assert run_policy("fmt", "--check", str(team)) == 2


def test_test_and_explain_read_every_file(tmp_path: Path, capsys: Capture) -> None:
    path = three(tmp_path)
    assert run_policy("test", str(path)) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out
    words = ("https://api.example/", "--policy", str(path), "--resolved", "203.0.114.1")
    assert run_policy("explain", *words) == 0
    assert f"api at {tmp_path}/team/rules.yaml:4" in capsys.readouterr().out
    assert run_policy("explain", "https://x.paste.example/", "--policy", str(path)) == 1
    assert f"paste, {tmp_path}/base.yaml:7" in capsys.readouterr().out


OBSERVED = """\
version: 1
name: team
rules:
  - {id: api, hosts: [api.example]}
  - id: new
    hosts: [new.example]
    observe: true # until we know
tests:
  - {profile: p, request: PUT https://new.example/, expect: observe method_not_allowed}
"""


def recorded(log: Path, policy_file: Path, *asked: str) -> None:
    policy = load_policy_file(policy_file)
    write_log(log, [entry(policy, text) for text in asked])


def test_a_rule_of_an_included_file_is_promoted_where_it_stands(
    tmp_path: Path, capsys: Capture
) -> None:
    outer = OUTER.replace("packages, api", "packages, api, new")
    path, log = three(tmp_path, outer=outer, team__rules=OBSERVED), tmp_path / "log"
    recorded(log, path, "PUT https://new.example/x", "GET https://new.example/")
    others = {file: file.read_bytes() for file in (path, tmp_path / "base.yaml")}
    assert run_policy("promote", str(path), "--audit", str(log)) == 0
    told = capsys.readouterr()
    assert "may be promoted" in told.out and "team/rules.yaml: would change" in told.err
    assert run_policy("promote", str(path), "--audit", str(log), "--write") == 0
    expected = OBSERVED.replace("observe: true", "observe: false").replace(
        "expect: observe", "expect: deny"
    )
    assert (tmp_path / "team" / "rules.yaml").read_text() == expected
    assert {file: file.read_bytes() for file in others} == others
    assert run_policy("check", str(path), *AT) == 0


def test_a_policy_of_several_files_is_promoted_as_a_whole(tmp_path: Path, capsys: Capture) -> None:
    outer = f"{OUTER.replace('packages, api', 'packages, api, new')}mode: observe\n"
    path, log = three(tmp_path, outer=outer, team__rules=OBSERVED), tmp_path / "log"
    recorded(log, path, "GET https://nowhere.example/")
    assert run_policy("promote", str(path), "--audit", str(log), "--write") == 1
    assert "GET https://nowhere.example:443/" in capsys.readouterr().out
    assert path.read_text() == outer
    path.write_text(f"{outer}deny: [{{id: d, hosts: [nowhere.example]}}]\n")
    assert run_policy("promote", str(path), "--audit", str(log), "--write") == 0
    assert "mode: enforce" in path.read_text()
    assert "observe: false" in (tmp_path / "team" / "rules.yaml").read_text()
