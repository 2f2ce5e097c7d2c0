"""Sealed records: only the right key opens them, whole, and in their own place."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.wire.sealing import (
    ENVIRONMENT_NAME,
    MasterKey,
    MasterKeyError,
    SealBroken,
    create_key_file,
    find_master_key,
    key_id_of,
    load_key_file,
    master_key_of,
    read_from_environment,
    replace_key_file,
)

KEY = MasterKey.of(bytes(range(32)))
OTHER = MasterKey.of(bytes(range(1, 33)))


@given(name=st.text(max_size=40), secret=st.binary(max_size=300))
def test_what_was_sealed_opens_under_its_name(name: str, secret: bytes) -> None:
    box = KEY.seal(name, secret)
    assert KEY.open(name, box) == secret
    assert len(secret) < 8 or secret not in box


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    assert KEY.seal("a", b"secret") != KEY.seal("a", b"secret")


def test_another_master_key_is_named_as_such() -> None:
    box = OTHER.seal("authority/key", b"secret")
    with pytest.raises(SealBroken, match=f"another master key \\(id {OTHER.key_id}") as broken:
        KEY.open("authority/key", box)
    assert "authority/key" in str(broken.value)
    assert KEY.key_id in str(broken.value)


def test_a_record_in_another_records_place_does_not_open() -> None:
    box = KEY.seal("pepper", b"secret")
    with pytest.raises(SealBroken, match="another record's"):
        KEY.open("authority/key", box)


def test_any_changed_byte_is_noticed() -> None:
    box = KEY.seal("pepper", b"secret")
    for place in range(len(box)):
        changed = box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :]
        with pytest.raises(SealBroken):
            KEY.open("pepper", changed)


def test_any_missing_end_is_noticed() -> None:
    box = KEY.seal("pepper", b"secret")
    for length in range(len(box)):
        with pytest.raises(SealBroken):
            KEY.open("pepper", box[:length])


def test_nothing_shows_the_key_or_the_secret() -> None:
    assert bytes(range(32)).hex() not in repr(KEY)
    assert repr(KEY) == f"MasterKey(id {KEY.key_id})"
    assert KEY.key_id not in bytes(range(32)).hex()


@pytest.mark.parametrize("key", [b"", b"short", bytes(31), bytes(33), bytes(32), b"\xff" * 32])
def test_what_is_no_random_key_is_refused(key: bytes) -> None:
    with pytest.raises(MasterKeyError, match="32 random bytes"):
        MasterKey.of(key)


def test_a_key_file_is_made_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    made = create_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key_file(path).open("x", made.seal("x", b"secret")) == b"secret"
    with pytest.raises(MasterKeyError, match="cannot make"):
        create_key_file(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    create_key_file(path)
    path.chmod(mode)
    with pytest.raises(MasterKeyError, match=f"mode {mode:o} is too open"):
        load_key_file(path)


def test_a_key_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    create_key_file(tmp_path / "real.key")
    (tmp_path / "master.key").symlink_to(tmp_path / "real.key")
    with pytest.raises(MasterKeyError, match="cannot be read"):
        load_key_file(tmp_path / "master.key")


def test_a_missing_key_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match=f"restore the file, or set {ENVIRONMENT_NAME}"):
        load_key_file(tmp_path / "master.key")


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "0" * 63, "ab" * 33, "00" * 32, "é" * 64])
def test_text_that_is_no_key_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master.key"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(MasterKeyError) as from_file:
        load_key_file(path)
    with pytest.raises(MasterKeyError) as from_environment:
        read_from_environment({ENVIRONMENT_NAME: text})
    for error in (from_file.value, from_environment.value):
        assert not text or text not in str(error)


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    in_file = create_key_file(path)
    environment = {ENVIRONMENT_NAME: bytes(range(32)).hex()}
    assert find_master_key(path, environment).key_id == KEY.key_id
    assert find_master_key(path, {}).key_id == in_file.key_id
    assert read_from_environment({}) is None
    with pytest.raises(MasterKeyError, match=ENVIRONMENT_NAME):
        find_master_key(path, {ENVIRONMENT_NAME: ""})


def test_of_several_keys_the_first_seals_and_each_opens(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    old = create_key_file(path)
    box = old.seal("a", b"secret")
    replace_key_file(path, MasterKey.generate(older=(old,)))
    both = load_key_file(path)
    assert both.key_ids == (both.key_id, old.key_id) and both.key_id != old.key_id
    assert key_id_of("a", both.seal("a", b"new")) == both.key_id
    assert both.open("a", box) == b"secret"
    with pytest.raises(SealBroken, match="another master key"):
        both.alone.open("a", box)
    pair = f"{bytes(range(32)).hex()}, {bytes(range(1, 33)).hex()}"
    from_environment = read_from_environment({ENVIRONMENT_NAME: pair})
    assert from_environment is not None
    assert from_environment.key_ids == (KEY.key_id, OTHER.key_id)


def test_too_many_keys_are_refused() -> None:
    text = ",".join(bytes(range(n, n + 32)).hex() for n in range(9))
    with pytest.raises(MasterKeyError, match="up to 8 keys"):
        read_from_environment({ENVIRONMENT_NAME: text})


def test_a_key_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(KEY)


def test_a_record_of_version_one_opens_for_ever() -> None:
    # written by this module when the format was released
    box = bytes.fromhex(
        "50534c31528378ab603cd78016a51e8a314144f1fee8a13b89e17de0e98f9ad92b7b6842a2fb97f3"
        "b0c2a06d86045432f8223a77b20dd0066f455568a85db6d437a50e9640dd0e7b69ac65bdb0d4b98d"
        "1afc33"
    )
    assert KEY.open("vault:global/github_token", box) == b"ghp_example"


@dataclass(frozen=True)
class Vault:
    """A key manager that holds one key."""

    key: bytes

    def master_key_bytes(self) -> bytes:
        return self.key


def test_a_key_manager_gives_the_key() -> None:
    assert master_key_of(Vault(bytes(range(32)))).key_id == KEY.key_id
    with pytest.raises(MasterKeyError):
        master_key_of(Vault(b""))
