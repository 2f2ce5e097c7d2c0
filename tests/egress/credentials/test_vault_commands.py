"""Mirror of cli/vault_commands.py and cli/vault_parser.py: what is told, and that no secret is."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_egress.cli.main import main
from palyra_egress.credentials.vault_file import VaultFile
from palyra_fleet.wire.sealing import ENVIRONMENT_NAME, load_key_file

SECRET = "ghp_0123456789abcdefSECRET"
NAME = "global/github_token"

type Answer = tuple[int, str, str]
type Run = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PALYRA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(ENVIRONMENT_NAME, raising=False)
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `palyra-egress vault …`; whatever it answers, no secret is in it."""

    def call(*words: str, given: bytes = b"") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        try:
            code = main(["vault", *words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = capsys.readouterr()
        assert "SECRET" not in told.out + told.err
        assert re.search("[0-9a-f]{64}", told.out + told.err) is None
        return code, told.out, told.err

    return call


@pytest.fixture
def vault(run: Run, home: Path) -> VaultFile:
    """A vault with one secret."""
    assert run("init")[0] == 0
    assert run("set", NAME, given=SECRET.encode() + b"\n")[0] == 0
    return VaultFile.in_directory(home / "egress", environment={})


def value(file: VaultFile, name: str = NAME) -> str:
    opened = file.read()
    return opened.vault.value(name, opened.key)


def test_init_says_what_it_made_and_makes_it_for_the_owner_only(run: Run, home: Path) -> None:
    code, out, err = run("init")
    key_id = load_key_file(home / "egress" / "master.key").key_id
    assert (code, out) == (0, "")
    assert err == (
        f"made {home}/egress/vault.json (empty), sealed with the master key {key_id}\n"
        f"the master key is in {home}/egress/master.key;"
        " keep it apart from backups of the vault\n"
    )
    assert home.stat().st_mode & 0o777 == (home / "egress").stat().st_mode & 0o777 == 0o700


def test_a_second_init_overwrites_nothing(run: Run, vault: VaultFile) -> None:
    code, _, err = run("init")
    assert code == 2 and "is there already; it is not overwritten" in err
    assert value(vault) == SECRET


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_secret_comes_from_standard_input_without_its_line_end(
    run: Run, vault: VaultFile, end: bytes
) -> None:
    code, out, err = run("set", "vault:team/x.y-z", given=b"another-SECRET" + end)
    assert (code, out) == (0, "")
    assert err == "set vault:team/x.y-z (14 bytes, generation 3)\n"
    assert value(vault, "team/x.y-z") == "another-SECRET"


def test_a_secret_comes_from_a_file(run: Run, vault: VaultFile, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file-SECRET\n")
    assert run("set", NAME, "--from-file", str(tmp_path / "token"))[0] == 0
    assert value(vault) == "from-file-SECRET"
    code, _, err = run("set", NAME, "--from-file", str(tmp_path / "absent"))
    assert code == 2 and "No such file" in err


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"", "it is shorter than 8 characters"),
        (b"SECRET", "it is shorter than 8 characters"),
        (b"first-SECRET\nsecond-SECRET\n", "it holds a line end"),
        (b"first-SECRET\n\n", "it holds a line end"),
        (b" with-space-SECRET", "it holds a line end, a control character, non-ASCII, or a space"),
        ("schlüssel-SECRET".encode(), "non-ASCII"),
        (b"SECRET" * 5_000, "it is longer than 16384 characters"),
    ],
)
def test_what_cannot_stand_in_a_header_is_refused_untold(
    run: Run, vault: VaultFile, given: bytes, why: str
) -> None:
    code, _, err = run("set", NAME, given=given)
    assert code == 2 and why in err
    assert err.startswith("palyra-egress: nothing was set: ")
    assert value(vault) == SECRET


@pytest.mark.parametrize(
    "words",
    [
        ("set", NAME, SECRET),
        ("set", NAME, f"--value={SECRET}"),
        ("set", NAME, "--value", SECRET),
        ("set", NAME, "--from_file", SECRET),
        ("show-metadata", NAME, "-o", SECRET),
        ("show-metadata", NAME, f"--output={SECRET}"),
        ("set", NAME, "--from-file", SECRET),
        ("set", NAME, f"--from-file={SECRET}"),
        ("show-metadata", SECRET),
        ("remove", SECRET),
        ("list", SECRET),
        (SECRET,),
        (f"--value={SECRET}", "list"),
        ("--value", SECRET, "list"),
    ],
)
def test_a_secret_typed_as_an_argument_is_not_repeated(
    run: Run, vault: VaultFile, words: tuple[str, ...]
) -> None:
    code, _, err = run(*words)
    assert code == 2 and "it is not repeated here" in err
    assert SECRET not in err
    assert len(vault.read().vault.facts) == 1


def test_list_shows_names_ages_and_sizes(run: Run, vault: VaultFile) -> None:
    run("set", "a/b", given=b"another-SECRET")
    code, out, _ = run("list")
    head, *rows = out.splitlines()
    assert code == 0 and head.split() == ["name", "age", "value_bytes", "updated_at"]
    assert [row.split()[0] for row in rows] == ["a/b", NAME]
    assert rows[1].split()[2:4] == ["s", "26"]
    code, out, _ = run("list", "-o", "json")
    found = json.loads(out)
    assert [sorted(row) for row in found] == [
        ["age", "created_at", "name", "updated_at", "value_bytes"]
    ] * 2


def test_show_metadata_knows_what_was_meant(run: Run, vault: VaultFile) -> None:
    code, out, _ = run("show-metadata", NAME, "-o", "json")
    assert code == 0 and json.loads(out)["value_bytes"] == len(SECRET)
    code, out, err = run("show-metadata", "global/github_tokem")
    assert (code, out) == (2, "")
    assert err == (
        "palyra-egress: there is no such secret\n"
        "  why: the vault has no record of this name (it is not repeated here)\n"
        "  do:  did you mean global/github_token?\n"
    )


def test_remove_takes_one_away(run: Run, vault: VaultFile) -> None:
    assert run("remove", NAME)[2] == ("removed vault:global/github_token (generation 3, 0 left)\n")
    assert not vault.read().vault.facts
    code, _, err = run("remove", NAME)
    assert code == 2 and "`palyra-egress vault list` shows what there is" in err


@pytest.mark.parametrize("name", ["../x", "a//b", "", "a b", "/etc/passwd", "vault:", "a\nb"])
def test_a_name_has_one_spelling(run: Run, vault: VaultFile, name: str) -> None:
    code, _, err = run("set", name, given=SECRET.encode())
    assert code == 2 and "write a name such as vault:global/github_token" in err


def test_rotate_key_tells_both_keys(run: Run, vault: VaultFile) -> None:
    old = load_key_file(vault.key_path).key_id
    code, _, err = run("rotate-key")
    new = load_key_file(vault.key_path).key_id
    assert code == 0 and old != new
    assert err == f"sealed 1 records again, with the master key {new} (before: {old})\n"
    assert value(vault) == SECRET


def test_a_key_of_the_variable_is_rotated_by_its_owner(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = os.urandom(32).hex(), os.urandom(32).hex()
    monkeypatch.setenv(ENVIRONMENT_NAME, old)
    run("init")
    run("set", NAME, given=SECRET.encode())
    code, _, err = run("rotate-key")
    assert code == 2 and "PALYRA_MASTER_KEY holds one key" in err
    monkeypatch.setenv(ENVIRONMENT_NAME, f"{new},{old}")
    code, _, err = run("rotate-key")
    assert code == 0 and "take the old key out of PALYRA_MASTER_KEY" in err
    monkeypatch.setenv(ENVIRONMENT_NAME, new)
    assert run("check")[0] == 0
    assert not (home / "egress" / "master.key").exists()


def test_check_opens_every_record(run: Run, vault: VaultFile) -> None:
    code, out, _ = run("check", "-o", "json")
    found = json.loads(out)
    assert code == 0 and (found["records"], found["generation"], found["problems"]) == (1, 2, [])


def test_check_ends_with_one_where_a_record_cannot_be_used(run: Run, vault: VaultFile) -> None:
    vault.change(lambda it: it.vault.with_record("a/b", "\r\nSECRET-line", it.key, 1))
    code, _, err = run("check")
    assert code == 1 and err.startswith("vault:a/b: it holds a line end")


def test_a_damaged_vault_is_yours_to_fix(run: Run, vault: VaultFile) -> None:
    vault.path.write_bytes(vault.path.read_bytes().replace(b'"global', b'"glabol'))
    for words in (("list",), ("check",), ("set", NAME), ("rotate-key",), ("remove", NAME)):
        code, out, err = run(*words, given=SECRET.encode())
        assert (code, out) == (2, "")
        assert "vault.json: the record global/github_token was taken away" in err


def test_without_a_vault_every_command_says_how_to_make_one(run: Run, home: Path) -> None:
    for words in (("list",), ("check",), ("set", NAME), ("rotate-key",), ("remove", NAME)):
        code, _, err = run(*words, given=SECRET.encode())
        assert (
            code == 2 and "there is no vault yet; make one with `palyra-egress vault init`" in err
        )
    assert not home.exists()


def _type_at_a_prompt(home: Path, *typed: str) -> tuple[int, str]:
    """Runs `vault set` on a terminal; its exit code, and all that the terminal showed."""
    master, slave = pty.openpty()
    program = [str(Path(sys.executable).with_name("palyra-egress")), "vault", "set", NAME]
    with subprocess.Popen(
        program,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "PALYRA_HOME": str(home)},
    ) as process:
        os.close(slave)
        shown = b""
        waiting = list(typed)
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:  # the other side is closed
                break
            shown += data
            if data.rstrip().endswith(b":") and waiting:
                os.write(master, waiting.pop(0).encode() + b"\n")
        code = process.wait(30)
    os.close(master)
    return code, shown.decode()


def test_on_a_terminal_it_asks_twice_and_shows_nothing(home: Path, vault: VaultFile) -> None:
    code, shown = _type_at_a_prompt(home, "typed-SECRET", "typed-SECRET")
    assert (code, value(vault)) == (0, "typed-SECRET"), shown
    assert "SECRET" not in shown
    code, shown = _type_at_a_prompt(home, "typed-SECRET-2", "typed-SECRET-3")
    assert code == 2 and "the two inputs differ" in shown and "SECRET" not in shown
    assert value(vault) == "typed-SECRET"


@pytest.mark.parametrize(
    "verb",
    ["init", "set", "list", "show-metadata", "remove", "rotate-key", "check"],
)
def test_every_command_explains_itself(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0 and f"usage: palyra-egress vault {verb}" in out
