"""Mirror of credentials/vault_source.py: what the proxy has of a vault while it changes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_egress.credentials.vault_file import VaultFile
from palyra_egress.credentials.vault_source import VaultSource

NAME = "global/token"


@pytest.fixture
def file(tmp_path: Path) -> VaultFile:
    made = VaultFile.in_directory(tmp_path, environment={})
    made.create()
    put(made, "first-secret")
    return made


def put(file: VaultFile, value: str, name: str = NAME) -> None:
    file.change(lambda it: it.vault.with_record(name, value, it.key, 1))


def read(source: VaultSource) -> str:
    """The value, or the problem in brackets."""
    found = source.read(frozenset({NAME}), None)
    held = found.held.get(NAME)
    return held.value.reveal() if held else f"[{found.problems[NAME]}]"


def test_a_change_is_seen_and_what_is_not_asked_for_is_not_given(file: VaultFile) -> None:
    source = VaultSource(file)
    put(file, "another-secret", "other/token")
    assert read(source) == read(source) == "first-secret"
    assert set(source.read(frozenset({NAME}), None).held) == {NAME}
    put(file, "second-secret")
    assert read(source) == "second-secret"


def test_a_rotated_key_changes_nothing(file: VaultFile) -> None:
    source = VaultSource(file)
    assert read(source) == "first-secret"
    file.rotate_key()
    assert read(source) == "first-secret"


def test_a_removed_record_is_gone_and_told_how_to_set(file: VaultFile) -> None:
    source = VaultSource(file)
    assert read(source) == "first-secret"
    file.change(lambda it: it.vault.without_record(NAME))
    assert read(source) == (
        f"[{file.path}: has no record global/token;"
        " set it with `palyra-egress vault set global/token`]"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.path.unlink(),
        lambda file: file.path.write_bytes(b"garbage"),
        lambda file: file.path.chmod(0o644),
        lambda file: file.key_path.unlink(),
        lambda file: file.key_path.write_bytes(b"ab" * 16 + b"cd" * 16),
    ],
)
def test_a_vault_that_is_spoilt_gives_nothing_until_it_is_mended(
    file: VaultFile, spoil: Callable[[VaultFile], None]
) -> None:
    source = VaultSource(file)
    assert read(source) == "first-secret"
    vault, key = file.path.read_bytes(), file.key_path.read_bytes()
    spoil(file)
    assert read(source).startswith("[") and source.problem is not None
    file.path.unlink(missing_ok=True)
    file.key_path.unlink(missing_ok=True)
    for path, content in ((file.path, vault), (file.key_path, key)):
        path.touch(0o600)
        path.write_bytes(content)
    assert read(source) == "first-secret" and source.problem is None


def test_an_older_file_put_back_gives_nothing(file: VaultFile) -> None:
    source = VaultSource(file)
    old = file.path.read_bytes()
    put(file, "second-secret")
    assert read(source) == "second-secret"
    file.path.write_bytes(old)
    assert "went back from generation 3 to 2: an older file was put there" in read(source)
    assert read(VaultSource(file)) == "first-secret"  # a proxy that starts again believes it
    put(file, "third-secret")
    assert read(source) == "third-secret"


def test_a_new_vault_in_its_place_is_another_vault(file: VaultFile) -> None:
    source = VaultSource(file)
    put(file, "second-secret")
    assert read(source) == "second-secret"
    file.path.unlink()
    file.create()
    put(file, "fresh-secret")
    assert read(source) == "fresh-secret"


def test_a_record_that_is_no_secret_is_a_problem_of_its_own(file: VaultFile) -> None:
    put(file, "line\r\nX-Evil: SECRET")
    assert read(VaultSource(file)).startswith("[it holds a line end")
