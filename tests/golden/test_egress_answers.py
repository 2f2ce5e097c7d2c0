"""What the commands of the proxy answer programs: JSON, JSON lines, SARIF, workflow commands.

One folder with two policies, a log that was recorded under one of them, a vault and a root. What
has a form for programs has a line in it.
"""

import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from palyra_egress.audit.entries import receipt_entry, transfer_entry
from palyra_egress.audit.log import AuditLog
from palyra_egress.policy.load import load_policy
from palyra_fleet.wire.keys import SigningKey
from tests.egress.policy.recorded_traffic import entry
from tests.golden.transcript import Transcript, compare, documents

OBSERVING: Final = """\
version: 1
name: sample
mode: observe
rules:
  - {id: issues, hosts: [api.example], methods: [GET], owner: team-a, reason: reads issues}
  - {id: packages, hosts: [packages.example]}
profiles: {agent: [issues]}
tests:
  - {profile: agent, request: GET https://api.example/, expect: allow}
"""
STRICT: Final = OBSERVING.replace("mode: observe\n", "").replace("[GET]", "[GET, POST]")
FAILING: Final = OBSERVING.replace(
    "GET https://api.example/, expect", "GET https://b.test/, expect"
)
BROKEN: Final = OBSERVING.replace("methods:", "method:")
AT: Final = ("--at", "2027-01-01T00:00:00Z")


class Answers(Transcript):
    """Commands of `palyra-egress` that answer programs."""

    def tell(self, *command: str, code: int = 0) -> str:
        """Run one; what it puts out is JSON, or JSON line by line."""
        found = self("palyra-egress", *command)
        assert found[0] == code, found
        assert documents(found[1]), found
        return found[1]

    def tell_all_forms(self, *command: str, code: int = 0) -> None:
        """The forms of a finding: for programs, for code scanning, and for workflows."""
        for form in ("json", "sarif"):
            self.tell(*command, "-o", form, code=code)
        found = self("palyra-egress", *command, "-o", "github")
        assert found[0] == code and all(line.startswith("::") for line in found[1].splitlines())


@pytest.fixture
def answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Answers:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("PALYRA_HOME", str(place / "var"))
    for name in ("PALYRA_MASTER_KEY", "PALYRA_EGRESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    texts = {"old": OBSERVING, "new": STRICT, "failing": FAILING, "broken": BROKEN}
    for name, text in texts.items():
        Path(f"{name}.yaml").write_text(text)
    return Answers(capsys, {str(place): "<here>", str(tmp_path): "<there>"})


def about_files(answers: Answers) -> None:
    answers.heading("policy files")
    answers.tell("policy", "check", "old.yaml", *AT, "-o", "json")
    answers.tell_all_forms("policy", "check", "broken.yaml", *AT, code=2)
    answers.tell("policy", "test", "old.yaml", *AT, "-o", "json")
    answers.tell_all_forms("policy", "test", "failing.yaml", *AT, code=1)
    answers.tell_all_forms("policy", "lint", "old.yaml", *AT, code=1)
    answers.tell_all_forms("policy", "diff", "old.yaml", "new.yaml", "--no-widen", code=1)


def about_requests(answers: Answers) -> None:
    answers.heading("single requests")
    policy = ("--policy", "new.yaml", *AT, "-o", "json")
    resolved = ("--resolved", "203.0.114.1")
    answers.tell("policy", "explain", "https://api.example/a", *policy, *resolved)
    answers.tell("policy", "explain", "https://evil.example/", *policy, code=1)
    answers.tell("policy", "explain", "https://bad_host/", *policy, code=1)


def judged_line_by_line(answers: Answers) -> None:
    asked = [
        {"id": 1, "method": "GET", "url": "https://api.example/", "resolved": ["203.0.114.1"]},
        {"id": 2, "method": "DELETE", "url": "https://api.example/"},
        {"id": 3, "method": 7},
    ]
    lines = "\n".join(map(json.dumps, asked)).encode() + b"\nno JSON\n"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        answers.tell("policy", "judge", "--policy", "new.yaml", *AT, "-o", "json")


def about_recorded_traffic(answers: Answers) -> None:
    answers.heading("recorded traffic")
    key = SigningKey.generate()
    observing = load_policy(OBSERVING.encode(), "old.yaml")
    log = AuditLog.open(Path("audit.jsonl"), key, 0)
    for text in ("GET https://api.example/", "POST https://api.example/x"):
        log.append(entry(observing, text, profile="agent", at=1_800_000_000_000))
    strict = load_policy(STRICT.encode(), "new.yaml")
    refused = "DELETE https://api.example/y"
    log.append(entry(strict, refused, profile="agent", at=1_800_000_000_000))
    log.append(transfer_entry("01A", "complete", 1, 2, 3, 1_800_000_000_001))
    log.append(receipt_entry("ab" * 32, "cd" * 32, 1_800_000_000_002))
    log.checkpoint(1_800_000_000_003)
    log.close()
    public = base64.b64encode(key.public_key).decode()
    answers.tell("audit", "verify", "audit.jsonl", "--key", public, "-o", "json")
    answers.tell("audit", "show", "audit.jsonl")
    answers.tell("audit", "show", "audit.jsonl", "--denied")
    answers.tell("audit", "export", "audit.jsonl", "--to", "ocsf")
    traffic = ("--audit", "audit.jsonl", "-o", "json")
    answers.tell("policy", "replay", "--policy", "old.yaml", *traffic)
    Path("strict.yaml").write_text(STRICT.replace("[GET, POST]", "[GET]"))
    answers.tell(
        "policy", "replay", "--policy", "strict.yaml", *traffic, "--fail-on-change", code=1
    )


def about_approvals(answers: Answers) -> None:
    answers.heading("approvals")
    rows = ""
    for name in ("ann", "ben"):
        made = ("policy", "key", "new", f"{name}.key", "--name", name)
        rows += answers.quietly("palyra-egress", *made)[1]
    approvers = Path.cwd().parent / "approvers.yaml"
    approvers.write_text(f"version: 1\nwidening: 2\nnarrowing: 1\napprovers:\n{rows}")
    approvers.chmod(0o600)
    asked = ("new.yaml", "--approvers", str(approvers), "-o", "json")
    answers.tell("policy", "approvals", *asked, code=1)
    for name in ("ann", "ben"):
        signed = ("policy", "approve", "new.yaml", "--key", f"{name}.key", "--name", name)
        assert answers.quietly("palyra-egress", *signed)[0] == 0
    answers.tell("policy", "approvals", *asked)
    answers.tell("policy", "check", *asked, *AT)


def about_secrets(answers: Answers) -> None:
    answers.heading("the vault")
    answers.quietly("palyra-egress", "vault", "init")
    Path("secret").write_text("correct-horse-battery-staple")
    answers.quietly("palyra-egress", "vault", "set", "global/token", "--from-file", "secret")
    answers.tell("vault", "list", "-o", "json")
    answers.tell("vault", "show-metadata", "global/token", "-o", "json")
    answers.tell("vault", "check", "-o", "json")


def about_the_installation(answers: Answers) -> None:
    answers.heading("the installation")
    answers.quietly("palyra-egress", "ca", "init")
    answers.tell("ca", "show", "-o", "json")
    Path("lease").write_text(f"01ARZ3NDEKTSV4RRFFQ69G5FAV:{'s' * 43}\n")
    Path("lease").chmod(0o600)
    answers.tell(
        *("env", "--shell", "json", "--proxy", "127.0.0.1:8080", "--ca", "ca.pem"),
        *("--ca-bundle", "bundle.pem", "--credentials-file", "lease"),
    )
    machine = (f"--skip={name}" for name in ("mitmproxy", "clock", "disk", "descriptors"))
    answers.tell(*("doctor", "--offline", "--policy", "old.yaml", *machine, "-o", "json"), code=1)


PARTS: Final[tuple[Callable[[Answers], None], ...]] = (
    about_files,
    about_requests,
    judged_line_by_line,
    about_recorded_traffic,
    about_approvals,
    about_secrets,
    about_the_installation,
)


def test_every_command_of_the_proxy_answers_programs_as_it_was_read_and_found_good(
    answers: Answers,
) -> None:
    for part in PARTS:
        part(answers)
    compare("egress-answers", answers.text())
    assert "correct-horse" not in answers.text()
