"""`vault`: the sealed file that `vault:` references name. No command prints a secret.

Data goes to stdout, chatter to stderr. Exit codes: 0 done, 1 the answer is no (`check`), 2 yours to
fix. A secret comes from standard input, a file or a prompt without echo, and loses one line end.
"""

import getpass
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from palyra_egress.clock import now_unix_ms
from palyra_egress.credentials.binding import (
    MAX_SECRET_CHARS,
    SecretRef,
    SecretRefRefused,
    secret_problem,
)
from palyra_egress.credentials.vault_file import OpenVault, VaultFile
from palyra_egress.credentials.vault_format import Vault, full_name
from palyra_egress.installation import Installation
from palyra_egress.policy.values import write_time
from palyra_fleet.cli.output import say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.nearest_word import nearest
from palyra_fleet.wire.sealing import ENVIRONMENT_NAME, SealBroken

_COLUMNS: Final = ("name", "age", "value_bytes", "updated_at")


class SecretView(BaseModel):
    """What is told about a secret."""

    name: str
    value_bytes: int
    created_at: str
    updated_at: str
    age: str


class CheckView(BaseModel):
    """The answer of `check`."""

    vault: str
    master_key: str
    key_id: str
    generation: int
    records: int
    problems: list[str]


def init_(arguments: Namespace) -> int:
    """Make the vault."""
    if arguments.state_dir is None:
        Installation.of_environment().create()
    file = _file(arguments)
    opened = file.create()
    say(f"made {file.path} (empty), sealed with the master key {opened.key.key_id}")
    say(f"the master key is in {file.key_place}; keep it apart from backups of the vault")
    return ExitCode.DONE


def set_(arguments: Namespace) -> int:
    """Set one secret. It is read before anybody else's turn is held up."""
    name = _name(arguments.name)
    file = _file(arguments)
    file.read()
    value = _usable(_read_value(arguments.from_file, name))
    now = now_unix_ms()
    opened = file.change(lambda it: it.vault.with_record(name, value, it.key, now))
    size = opened.vault.facts[name].value_bytes
    say(f"set {full_name(name)} ({size} bytes, generation {opened.vault.generation})")
    return ExitCode.DONE


def list_(arguments: Namespace) -> int:
    """All names."""
    vault = _file(arguments).read().vault
    now = now_unix_ms()
    rows = [_view(vault, name, now) for name in sorted(vault.facts)]
    show_many(rows, arguments.output, _COLUMNS)
    return ExitCode.DONE


def show_metadata_(arguments: Namespace) -> int:
    """One name."""
    vault = _file(arguments).read().vault
    name = _name(arguments.name)
    _demand(vault, name)
    show_one(_view(vault, name, now_unix_ms()), arguments.output)
    return ExitCode.DONE


def remove_(arguments: Namespace) -> int:
    """Remove one secret."""
    name = _name(arguments.name)

    def without(opened: OpenVault) -> Vault:
        _demand(opened.vault, name)
        return opened.vault.without_record(name)

    vault = _file(arguments).change(without).vault
    say(f"removed {full_name(name)} (generation {vault.generation}, {len(vault.facts)} left)")
    return ExitCode.DONE


def rotate_key_(arguments: Namespace) -> int:
    """Seal again under a new key."""
    file = _file(arguments)
    from_environment = file.takes_key_from_environment
    before = file.read().key
    if from_environment and not before.older:
        raise Trouble(
            ExitCode.YOURS,
            "there is no new master key",
            f"{ENVIRONMENT_NAME} holds one key, and this program cannot change the variable",
            "put a new one in front of the old one, with a comma between, and try again"
            " (`openssl rand -hex 32` makes one)",
        )
    opened = file.rotate_key()
    say(
        f"sealed {len(opened.vault.facts)} records again, with the master key"
        f" {opened.key.key_id} (before: {before.key_ids[-1]})"
    )
    if from_environment:
        say(
            f"now take the old key out of {ENVIRONMENT_NAME}, wherever it is set; what the fleet"
            " sealed with it must be sealed again first"
        )
    return ExitCode.DONE


def check_(arguments: Namespace) -> int:
    """Open everything."""
    file = _file(arguments)
    opened = file.read()
    problems = [text for name in sorted(opened.vault.facts) if (text := _problem(opened, name))]
    view = CheckView(
        vault=str(file.path),
        master_key=file.key_place,
        key_id=opened.key.key_id,
        generation=opened.vault.generation,
        records=len(opened.vault.facts),
        problems=problems,
    )
    show_one(view, arguments.output)
    for text in problems:
        say(text)
    return ExitCode.NO if problems else ExitCode.DONE


def _file(arguments: Namespace) -> VaultFile:
    directory = arguments.state_dir or Installation.of_environment().egress_state
    return VaultFile.in_directory(directory, arguments.master_key_file)


def _name(text: str) -> str:
    """A record's name, with or without `vault:` in front."""
    try:
        return SecretRef.parse(full_name(text.removeprefix(full_name("")))).name
    except SecretRefRefused as error:
        raise Trouble(
            ExitCode.YOURS, "this is no name of a secret", error.detail, f"write {error.expected}"
        ) from None


def _demand(vault: Vault, name: str) -> None:
    if name in vault.facts:
        return
    meant = nearest(name, vault.facts)
    raise Trouble(
        ExitCode.YOURS,
        "there is no such secret",
        "the vault has no record of this name (it is not repeated here)",
        f"did you mean {meant}?" if meant else "`palyra-egress vault list` shows what there is",
    )


def _read_value(file: Path | None, name: str) -> bytes:
    """What was given, as it was given."""
    if file is not None and str(file) != "-":
        return _read_file(file)
    if file is None and sys.stdin.isatty():
        return _ask(name)
    return sys.stdin.buffer.read(MAX_SECRET_CHARS + 3)


def _read_file(file: Path) -> bytes:
    """The content of a file, whose name is not told: it may be the secret itself, by mistake."""
    try:
        with file.open("rb") as source:
            return source.read(MAX_SECRET_CHARS + 3)
    except OSError as error:
        raise Trouble(
            ExitCode.YOURS,
            "nothing was set",
            f"the file of --from-file cannot be read: {error.strerror} (it is not repeated here)",
            "give the name of a file that holds the secret, or the secret on standard input",
        ) from None


def _ask(name: str) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            first = getpass.getpass(f"value of {name} (not shown): ")
            again = getpass.getpass("once more: ")
        except (getpass.GetPassWarning, EOFError):
            raise Trouble(
                ExitCode.YOURS,
                "nothing was set",
                "this terminal cannot hide what is typed, or was closed",
                "give the secret on standard input, or with --from-file",
            ) from None
    if first != again:
        raise Trouble(
            ExitCode.YOURS, "nothing was set", "the two inputs differ", "try again, and paste it"
        )
    return first.encode(errors="surrogatepass")


def _usable(given: bytes) -> str:
    """The secret without its line end, or trouble that tells nothing of it."""
    text = given.decode("ascii", errors="replace").removesuffix("\n").removesuffix("\r")
    problem = secret_problem(text)
    if problem is None:
        return text
    raise Trouble(
        ExitCode.YOURS,
        "nothing was set: this cannot be a secret in a header",
        problem,
        "give the secret alone, in one line (`printf %s …`, or a file that holds nothing else)",
    )


def _problem(opened: OpenVault, name: str) -> str | None:
    try:
        problem = secret_problem(opened.vault.value(name, opened.key))
    except SealBroken as error:
        return str(error)
    return None if problem is None else f"{full_name(name)}: {problem}"


def _view(vault: Vault, name: str, now: int) -> SecretView:
    row = vault.facts[name]
    return SecretView(
        name=name,
        value_bytes=row.value_bytes,
        created_at=write_time(row.created_at_unix_ms),
        updated_at=write_time(row.updated_at_unix_ms),
        age=_age(now - row.updated_at_unix_ms),
    )


def _age(ms: int) -> str:
    """How long ago it was set, in the largest unit that fits."""
    for unit, unit_ms in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if ms >= unit_ms:
            return f"{ms // unit_ms} {unit}"
    return f"{max(ms, 0) // 1000} s"
