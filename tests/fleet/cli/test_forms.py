"""`-o`, `--watch`, `--dry-run` and completion, of the real command line."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from palyra_egress.cli.parser import make_parser as egress_parser
from palyra_fleet.cli.output import FORMS, show_many, show_one
from palyra_fleet.cli.parser import make_parser as fleet_parser
from palyra_fleet.cli.reference_page import commands
from palyra_fleet.wire.enrolment_models import ReferenceValueView
from palyra_fleet.wire.models import LeaseState
from tests.fleet.cli.conftest import Shell

LEASE = "01JQ0000000000000000000000"
STATE = LeaseState(lease_id=LEASE, state="live", expires_at_unix_ms=1)
REFERENCE = ReferenceValueView(digest_field="image", digest_sha256="a" * 64, workers=0)


@pytest.mark.parametrize("show", [lambda form: show_many([STATE, STATE], form)])
def test_every_form_shows_the_same_things(
    show: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[str, str] = {}
    for form in FORMS:
        show(form)
        said[form] = capsys.readouterr().out
    expected = [STATE.model_dump(mode="json")] * 2
    assert json.loads(said["json"]) == expected
    assert YAML(typ="safe").load(said["yaml"]) == expected
    assert said["name"].split() == [LEASE, LEASE]
    heading, *rows = said["table"].splitlines()
    assert heading.split() == ["lease_id", "state", "expires_at"]
    assert rows == [f"{LEASE}  live   1970-01-01 00:00:00 UTC"] * 2


def test_one_thing_is_named_by_its_first_column(capsys: pytest.CaptureFixture[str]) -> None:
    show_one(STATE, "name")
    assert capsys.readouterr().out == LEASE + "\n"


def test_yaml_escapes_what_would_move_a_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = STATE.model_copy(update={"lease_id": "\x1b[2J\u202e: - x"})
    show_many([hostile], "yaml")
    told = capsys.readouterr().out
    assert all(sign.isprintable() or sign == "\n" for sign in told)
    assert YAML(typ="safe").load(told)[0]["lease_id"] == hostile.lease_id


def test_an_empty_list_is_empty_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for form in FORMS:
        show_many([], form)
        told.append(capsys.readouterr().out)
    assert told == ["", "[]\n", "[]\n", ""]


@pytest.mark.parametrize("program", ["palyra-fleet", "palyra-egress"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_its_shell_can_read(
    shell: str, program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = fleet_parser() if program == "palyra-fleet" else egress_parser()
    arguments = parser.parse_args(["completion", shell])
    assert arguments.run(arguments) == 0
    script = capsys.readouterr().out
    assert "doctor" in script and program in script
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed, so it did not read the script")
    file = tmp_path / "completion"
    file.write_text(script)
    check = subprocess.run(
        [found, "-n", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    assert (check.returncode, check.stderr) == (0, "")


def test_bash_completes_a_verb_of_a_noun(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = fleet_parser().parse_args(["completion", "bash"])
    arguments.run(arguments)
    script = capsys.readouterr().out
    asks = (
        "COMP_WORDS=(palyra-fleet worker qua); COMP_CWORD=2;"
        " f=$(complete -p palyra-fleet | sed 's/.*-F \\([^ ]*\\).*/\\1/');"
        ' $f palyra-fleet qua worker; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{asks}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["quarantine"], done.stderr


def test_every_command_says_what_it_is_for() -> None:
    for top in (fleet_parser(), egress_parser()):
        for parser in commands(top):
            assert parser.format_help().startswith(f"usage: {parser.prog}")


async def test_a_list_is_watched_until_it_is_interrupted(shell: Shell) -> None:
    serving = await shell.start("serve", "--admin", "127.0.0.1:0")
    assert serving.stderr is not None
    while b"operator token" not in await serving.stderr.readline():
        pass
    watching = await shell.start("principal", "list", "-o", "name", "--watch", "1")
    assert watching.stdout is not None
    async with asyncio.timeout(60):
        seen = [(await watching.stdout.readline()).decode().strip() for _ in range(3)]
    assert seen == ["operator", "", "operator"]
    assert watching.returncode is None
    watching.terminate()
    await watching.communicate()
    done = await shell("worker", "quarantine", LEASE, "--reason", "trial", "--dry-run")
    assert (done.code, done.out) == (1, "")
    serving.terminate()
    await serving.communicate()
