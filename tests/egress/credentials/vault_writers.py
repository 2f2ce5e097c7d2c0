"""Programs that write a vault over and over, to be killed or to race."""

from pathlib import Path

from palyra_egress.credentials.vault_file import VaultFile

VALUES = ("a" * 3_000, "b" * 3_000)


def set_for_ever(directory: Path) -> None:
    """Sets one record to one value after the other, until it is killed."""
    file = VaultFile.in_directory(directory, environment={})
    turn = 0
    while True:
        turn += 1
        value = VALUES[turn % 2]
        file.change(lambda it, value=value: it.vault.with_record("a/b", value, it.key, 1))  # type: ignore[misc]


def rotate_for_ever(directory: Path) -> None:
    """Rotates the master key until it is killed."""
    file = VaultFile.in_directory(directory, environment={})
    while True:
        file.rotate_key()


def set_many(directory: Path, prefix: str, count: int) -> None:
    """Sets `count` records of its own."""
    file = VaultFile.in_directory(directory, environment={})
    for number in range(count):
        name = f"{prefix}/n{number}"
        file.change(lambda it, name=name: it.vault.with_record(name, name * 4, it.key, 1))  # type: ignore[misc]
