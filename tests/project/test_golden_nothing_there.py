"""What commands say where nothing was ever started: files that are missing, a fleet that nobody
knows, a fleet that does not answer.
"""

import io
from pathlib import Path
from typing import Final

import pytest

from tests.golden.command_tree import SAMPLES, Leaf, leaves
from tests.golden.transcript import Transcript, compare

NOT_HERE: Final = {
    "palyra-egress demo": "brings everything itself; tests/e2e/test_demo.py",
    "palyra-egress doctor": "says what the machine is like; tests/e2e/test_doctor.py",
    "palyra-fleet doctor": "says what the machine is like; tests/e2e/test_doctor.py",
    "palyra-egress ca install": "would change this machine; tests/egress/cli/test_ca_commands.py",
    "palyra-fleet serve": "needs nothing and runs until it is told to end; tests/fleet/cli",
    "palyra-egress completion": "a script for a shell; tests/fleet/cli/test_forms.py",
    "palyra-fleet completion": "a script for a shell; tests/fleet/cli/test_forms.py",
    "palyra-egress audit schema": "a whole schema; tests/egress/audit",
    "palyra-fleet approval schema": "a whole schema; tests/fleet/leases",
    "palyra-egress policy schema": "a whole schema; tests/egress/policy",
    "palyra-egress config show": "what its flags are; docs/reference/settings.md",
    "palyra-fleet config show": "what its flags are; docs/reference/settings.md",
}
"""Commands that are not run in an empty place, and where they are looked at instead."""

HERE: Final = tuple(leaf for leaf in leaves() if leaf.name not in NOT_HERE)


def group(leaf: Leaf) -> str:
    return "-".join(leaf.words[:2]) if len(leaf.words) > 2 else leaf.words[0]


@pytest.fixture
def transcript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Transcript:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for name in ("PALYRA_HOME", "PALYRA_FLEET_URL", "PALYRA_FLEET_TOKEN_FILE", "PALYRA_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    # this process goes on with other tests: what serves would take its core files for good
    monkeypatch.setattr("palyra_egress.cli.serve_commands.forbid_core_files", lambda: None)
    monkeypatch.setattr("palyra_fleet.cli.local_commands.forbid_core_files", lambda: None)
    return Transcript(capsys)


def test_every_exception_is_a_command_and_has_a_reason() -> None:
    assert NOT_HERE.keys() <= {leaf.name for leaf in leaves()}
    assert all(NOT_HERE.values())


@pytest.mark.parametrize("name", sorted({group(leaf) for leaf in HERE}))
def test_every_command_in_an_empty_place_says_what_is_missing(
    name: str, transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, leaf in enumerate(HERE):
        if group(leaf) == name:
            empty = tmp_path / str(number)
            empty.mkdir()
            monkeypatch.chdir(empty)
            transcript.places[str(empty)] = "<here>"
            code, _, err = transcript(*leaf.asked())
            assert code in {0, 1, 2, 69}, err
    compare(f"nothing-there/{name}", transcript.text())


def test_every_question_to_a_fleet_that_does_not_answer_is_told_the_same(
    transcript: Transcript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "operator.token"
    token.write_text("x" * 43)
    monkeypatch.setenv("PALYRA_FLEET_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PALYRA_FLEET_TOKEN_FILE", str(token))
    monkeypatch.chdir(tmp_path)
    Path(SAMPLES["files"]).touch()  # what a command reads before it asks
    for leaf in leaves():
        if leaf.asks_the_fleet:
            code, out, err = transcript(*leaf.asked())
            assert (code, out) == (69, ""), err
            assert "x" * 43 not in err
    compare("unreachable", transcript.text())
