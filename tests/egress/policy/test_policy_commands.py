"""Mirror of cli/policy_request_commands.py and policy/case_lines.py: answers and exit codes."""

import io
import json
import sys
from pathlib import Path

import pytest

from tests.egress.policy.policy_program import run_policy
from tests.egress.policy.policy_text import HEAD, POLICIES, SAMPLES

AGENT = str(POLICIES / "coding-agent.yaml")
AT = ["--at", "2026-11-23T00:00:00Z"]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_policy_is_good_and_its_tests_pass(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_policy("check", str(path), *AT) == 0
    capsys.readouterr()
    assert run_policy("test", str(path), "-o", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["failed"] == 0 and answer["passed"] > 0


def test_check_tells_every_problem_and_returns_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"{HEAD}mode: x\nrule: []\n")
    assert run_policy("check", str(path)) == 2
    told = capsys.readouterr().err
    assert f"{path}:3:7: bad_value" in told and f"{path}:4:1: unknown_key" in told
    assert run_policy("check", str(path), "-o", "json") == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2
    assert run_policy("check", str(tmp_path / "absent.yaml")) == 2


def test_a_failing_embedded_test_is_an_answer_of_no(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        f"{HEAD}profiles: {{p: []}}\n"
        "tests: [{profile: p, request: GET https://a.test/, expect: allow}]\n"
    )
    assert run_policy("check", str(path)) == 1
    assert run_policy("test", str(path)) == 1
    assert "0 passed, 1 failed" in capsys.readouterr().out


def test_check_shows_what_lint_finds_and_still_says_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}rules: [{{id: old, hosts: [a.test], until: 2020-01-01T00:00:00Z}}]\n")
    assert run_policy("check", str(path), *AT, "-o", "json") == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert (3, "rule_expired") in [(row["line"], row["code"]) for row in warnings]
    assert run_policy("check", str(path), *AT) == 0
    told = capsys.readouterr()
    assert ": good: " in told.out and f"{path}:3:9: warning: rule_expired: " in told.err


def test_explain_names_the_rule_its_line_and_its_owner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--policy", AGENT, "--profile", "coding", *AT]
    allowed = ["explain", "https://git.example/acme/x", *asked]
    assert run_policy(*allowed, "--resolved", "203.0.114.1") == 0
    told = capsys.readouterr().out
    assert "allow: egress.allowed" in told and "owner platform-team" in told
    assert run_policy("explain", "https://git.example/other", *asked) == 1
    told = capsys.readouterr().out
    assert "egress.path_not_allowed" in told and f"git at {AGENT}:" in told
    assert "owner platform-team" in told
    assert run_policy(*allowed, "--resolved", "10.0.0.1") == 1
    assert "egress.private_target" in capsys.readouterr().out
    assert run_policy(*allowed) == 0
    assert "allowed if every address" in capsys.readouterr().out
    assert run_policy("explain", "https://127.1/", *asked) == 1
    assert "egress.numeric_host" in capsys.readouterr().out
    assert (
        run_policy("explain", "api.example:443", "--method", "CONNECT", *asked, "-o", "json") == 0
    )
    assert json.loads(capsys.readouterr().out)["steps"][0]["name"] == "request"


RELEASE = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"


def test_explain_takes_facts_and_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["explain", "https://packages.example/x", "--profile", "release", *AT]
    asked += ["--policy", str(POLICIES / "ci-job.yaml")]
    observed = {"binding_level": "observed"}
    assert run_policy(*asked, "--facts", json.dumps(observed)) == 1
    told = capsys.readouterr().out
    assert f"artifact_digest: one of {RELEASE}; seen: not known" in told
    assert "egress.profile_requirements" in told
    assert run_policy(*asked, "-o", "json") == 1
    unmet = json.loads(capsys.readouterr().out)["unmet"]
    assert unmet[0] == {"fact": "binding_level", "expected": "at least observed", "seen": "none"}
    facts = json.dumps({**observed, "artifact_digest": RELEASE})
    assert run_policy(*asked, "--facts", facts) == 0
    assert "allowed if every address" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ("enforced", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ('{"binding_lvel": "observed"}', "did you mean 'binding_level'?"),
        ('{"binding_level": "observd"}', "one of none, claimed, observed, enforced"),
        ('{"image_digest": "latest"}', "image_digest is not sha256: and 64"),
    ],
)
def test_explain_refuses_what_is_no_fact(
    capsys: pytest.CaptureFixture[str], facts: str, told: str
) -> None:
    with pytest.raises(SystemExit) as left:
        run_policy("explain", "https://a.example/", "--policy", AGENT, "--facts", facts)
    assert left.value.code == 2 and told in capsys.readouterr().err


CASES = [
    ({"method": "GET", "url": "https://git.example/acme/x"}, "allow", "allowed"),
    ({"method": "CONNECT", "url": "git.example:443"}, "allow", "allowed"),
    ({"method": "CONNECT", "url": "git.example"}, "deny", "port_missing"),
    ({"method": "GET", "url": "https://git.example/x"}, "deny", "path_not_allowed"),
    ({"method": "GET", "url": "https://other.example/"}, "deny", "host_not_allowed"),
    ({"method": "GET", "url": "https://a:b@git.example/"}, "deny", "url_credentials"),
    ({"method": "GET", "url": "ftp://git.example/"}, "deny", "scheme_unsupported"),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "profile": "q"},
        "deny",
        "profile_unknown",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "resolved": []},
        "deny",
        "resolution_empty",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "resolved": "x"},
        "deny",
        "request_malformed",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "colour": 1},
        "deny",
        "request_malformed",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "facts": 1},
        "deny",
        "request_malformed",
    ),
    ({"method": "GET"}, "deny", "request_malformed"),
    ({"method": 7, "url": None}, "deny", "request_malformed"),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "http_version": "HTTP/0.9"},
        "deny",
        "protocol_not_supported",
    ),
    ({"method": "GET", "url": "https://git.example/acme/x", "sni": None}, "deny", "sni_missing"),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "sni": "GIT.example."},
        "allow",
        "allowed",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "sni": "x.example"},
        "deny",
        "authority_mismatch",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "host_header": "git.example:443"},
        "allow",
        "allowed",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "host_header": "x.example"},
        "deny",
        "authority_mismatch",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "authority": "git.example:8443"},
        "deny",
        "authority_mismatch",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "connect": "git.example:8443"},
        "deny",
        "authority_mismatch",
    ),
    (
        {"method": "GET", "url": "https://git.example/acme/x", "connect": "git.example:443"},
        "allow",
        "allowed",
    ),
]


def test_judge_answers_every_line_and_never_breaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        json.dumps({"id": number, "resolved": ["203.0.114.1"], **case})
        for number, (case, _, _) in enumerate(CASES)
    ]
    broken = ["{", "[]", "7", '"x"', "\udcff", "[" * 100_000, '{"id": NaN}']
    source = "\n".join([*lines, "", *broken]).encode("utf-8", "surrogateescape")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source)))
    assert run_policy("judge", "--policy", AGENT, "--profile", "coding", *AT) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == len(CASES) + len(broken)
    for number, (case, effect, reason) in enumerate(CASES):
        answer = answers[number]
        assert (answer["id"], answer["effect"]) == (number, effect), case
        assert answer["reason"] == f"egress.{reason}", case
    for answer in answers[len(CASES) :]:
        assert (answer["effect"], answer["reason"]) == ("deny", "egress.request_malformed")
    first = answers[0]
    assert (
        first["class"] == "allowed"
        and first["rule"] == "git"
        and first["pinned"] == ["203.0.114.1"]
    )
    assert (first["canonical_host"], first["port"]) == ("git.example", 443)
