"""Mirror of credentials/vault_file.py: real files, killed writers, racing writers, rotation."""

import multiprocessing
import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_egress.credentials.vault_file import VaultFile, VaultMissing
from palyra_egress.credentials.vault_format import VaultDamaged, VaultError, VaultKeyMissing
from palyra_fleet.wire.sealing import (
    ENVIRONMENT_NAME,
    MasterKey,
    load_key_file,
    replace_key_file,
)
from tests.egress.credentials.vault_writers import (
    VALUES,
    rotate_for_ever,
    set_for_ever,
    set_many,
)

_SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def file(tmp_path: Path) -> VaultFile:
    """A vault with one record."""
    made = VaultFile.in_directory(tmp_path / "state", environment={})
    made.create()
    put(made, "a/b", VALUES[0])
    return made


def put(file: VaultFile, name: str, value: str) -> None:
    file.change(lambda it: it.vault.with_record(name, value, it.key, 1))


def value(file: VaultFile, name: str = "a/b") -> str:
    opened = file.read()
    return opened.vault.value(name, opened.key)


def test_a_new_vault_is_private_and_a_second_one_is_refused(file: VaultFile) -> None:
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.key_path.stat().st_mode) == 0o600
    before = file.path.read_bytes()
    with pytest.raises(VaultError, match="is there already; it is not overwritten"):
        file.create()
    assert file.path.read_bytes() == before


def test_no_vault_is_made_by_asking(tmp_path: Path) -> None:
    file = VaultFile.in_directory(tmp_path / "state", environment={})
    for ask in (file.read, file.rotate_key, lambda: put(file, "a/b", "some-secret")):
        with pytest.raises(VaultMissing, match="make one with `palyra-egress vault init`"):
            ask()
    assert not (tmp_path / "state").exists()


def test_a_change_that_fails_changes_nothing(file: VaultFile) -> None:
    before = file.path.read_bytes()
    with pytest.raises(KeyError):
        file.change(lambda it: it.vault.without_record("absent"))
    assert file.path.read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda path: path.chmod(0o644), VaultError, "mode 644 is too open; run: chmod 600 on it"),
        (lambda path: path.write_bytes(b""), VaultDamaged, "is not a vault, or cut short"),
        (lambda path: path.write_bytes(b"x" * 5_000_000), VaultError, "is larger than"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-40]),
            VaultDamaged,
            "is not a vault, or cut short",
        ),
        (lambda path: path.write_bytes(b"\x00\xff" * 99), VaultDamaged, "is not a vault"),
    ],
)
def test_a_spoilt_file_is_refused_by_name(
    file: VaultFile, spoil: Callable[[Path], None], error: type[Exception], said: str
) -> None:
    spoil(file.path)
    before = file.path.read_bytes()
    for ask in (file.read, file.rotate_key, lambda: put(file, "c/d", "some-secret")):
        with pytest.raises(error) as caught:
            ask()
        assert str(caught.value).startswith(f"{file.path}: ") and said in str(caught.value)
    assert file.path.read_bytes() == before


def test_another_master_key_is_told_by_its_id(file: VaultFile) -> None:
    right = load_key_file(file.key_path).key_id
    replace_key_file(file.key_path, other := MasterKey.generate())
    with pytest.raises(VaultKeyMissing) as caught:
        file.read()
    assert right in str(caught.value) and other.key_id in str(caught.value)
    assert file.key_path.read_text().strip() not in str(caught.value)


def test_a_lost_master_key_is_told(file: VaultFile) -> None:
    file.key_path.unlink()
    with pytest.raises(VaultError, match="does not exist"):
        file.read()


def test_a_rotation_leaves_the_new_key_alone_and_every_value(file: VaultFile) -> None:
    old = load_key_file(file.key_path)
    put(file, "c/d", "another-secret")
    file.rotate_key()
    key = load_key_file(file.key_path)
    assert not key.older and key.key_id != old.key_id
    assert (value(file), value(file, "c/d")) == (VALUES[0], "another-secret")


def test_keys_of_the_variable_rotate_without_a_file(tmp_path: Path) -> None:
    old, new = os.urandom(32).hex(), os.urandom(32).hex()
    environment = {ENVIRONMENT_NAME: old}
    file = VaultFile.in_directory(tmp_path / "state", environment=environment)
    file.create()
    put(file, "a/b", "some-secret")
    environment[ENVIRONMENT_NAME] = f"{new},{old}"
    file.rotate_key()
    environment[ENVIRONMENT_NAME] = new
    assert value(file) == "some-secret"
    assert not file.key_path.exists()


def _kill_soon(target: Callable[[Path], None], directory: Path, after_s: float) -> None:
    writer = _SPAWN.Process(target=target, args=(directory,))
    changed = directory / "vault.json"
    before = changed.stat().st_mtime_ns
    writer.start()
    give_up = time.monotonic() + 60
    while changed.stat().st_mtime_ns == before:  # until it writes
        assert time.monotonic() < give_up and writer.is_alive()
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        pass
    writer.kill()
    writer.join(60)
    writer.close()


@pytest.mark.crash
def test_a_killed_writer_leaves_the_old_value_or_the_new_one(file: VaultFile) -> None:
    for _ in range(8):
        _kill_soon(set_for_ever, file.path.parent, random.uniform(0, 0.03))
        assert value(file) in VALUES
    put(file, "a/b", "afterwards")
    assert value(file) == "afterwards"
    assert len(list(file.path.parent.glob("*.new"))) == 0


@pytest.mark.crash
def test_a_killed_rotation_loses_nothing_and_the_next_one_ends_it(file: VaultFile) -> None:
    for _ in range(8):
        _kill_soon(rotate_for_ever, file.path.parent, random.uniform(0, 0.03))
        assert value(file) == VALUES[0]
        assert len(load_key_file(file.key_path).key_ids) <= 2
    file.rotate_key()
    assert value(file) == VALUES[0]
    assert not load_key_file(file.key_path).older


@pytest.mark.crash
def test_racing_writers_lose_nothing_and_readers_never_see_half(file: VaultFile) -> None:
    directory = file.path.parent
    writers = [_SPAWN.Process(target=set_many, args=(directory, f"w{n}", 20)) for n in range(2)]
    rotator = _SPAWN.Process(target=rotate_for_ever, args=(directory,))
    for process in (*writers, rotator):
        process.start()
    reads, written = 0, False
    while not written:
        written = not any(writer.is_alive() for writer in writers)
        assert value(file) == VALUES[0]
        reads += 1
    rotator.kill()
    for process in (*writers, rotator):
        process.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    names = {"a/b"} | {f"w{n}/n{i}" for n in range(2) for i in range(20)}
    assert set(file.read().vault.facts) == names and reads > 0
    assert value(file, "w1/n19") == "w1/n19" * 4
