"""Sealed records: they open under their own name and key, and show nothing when they do not."""

import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.sealing import (
    MASTER_KEY_VARIABLE,
    KeyRing,
    MasterKey,
    MasterKeyError,
    SealBroken,
    key_id_of,
    load_key_ring,
    load_or_create_key_ring,
    write_key_file,
)

KNOWN = MasterKey(bytes(range(32)))
OTHER = MasterKey(bytes(range(1, 33)))
RING = KeyRing("a test", (KNOWN,))


@given(name=st.text(st.characters(codec="utf-8")), plaintext=st.binary())
def test_what_was_sealed_opens_under_its_name(name: str, plaintext: bytes) -> None:
    sealed = RING.seal(name, plaintext)
    assert RING.open(name, sealed) == plaintext
    assert len(plaintext) < 8 or plaintext not in sealed


def test_every_sealing_differs_and_names_its_key() -> None:
    first, second = RING.seal("a", b"secret"), RING.seal("a", b"secret")
    assert first[12:] != second[12:]
    assert key_id_of(first) == key_id_of(second) == KNOWN.key_id


def test_a_record_of_version_one_opens_for_ever() -> None:
    # written by this module when the format was released
    sealed = bytes.fromhex(
        "50535231a899eb5bb7cc8916e563ada29ac96536dc37f7cbfb18a5f57a436162027ef634c24cf0f1"
        "22af9fb31de9ba06800cba4adf0f073d9de1d5cc755066d20749d164f5b4bb78bf97f5c944b30aeb"
        "fcb162"
    )
    assert RING.open("vault:global/github_token", sealed) == b"ghp_example"


@given(st.data())
def test_a_changed_bit_anywhere_is_noticed(data: st.DataObject) -> None:
    sealed = RING.seal("a", b"secret")
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    broken = bytearray(sealed)
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        RING.open("a", bytes(broken))


@given(st.integers(0, 70))
def test_a_record_cut_short_is_noticed(length: int) -> None:
    sealed = RING.seal("a", b"secret")
    with pytest.raises(SealBroken):
        RING.open("a", sealed[: min(length, len(sealed) - 1)])


def test_a_record_in_anothers_place_does_not_open() -> None:
    with pytest.raises(SealBroken, match="b: was changed, or sealed under another name"):
        RING.open("b", RING.seal("a", b"secret"))


def test_a_record_of_another_key_names_both_keys() -> None:
    sealed = KeyRing("elsewhere", (OTHER,)).seal("a", b"secret")
    with pytest.raises(SealBroken) as caught:
        RING.open("a", sealed)
    assert str(caught.value) == (
        f"a: was sealed with the key {OTHER.key_id}; a test has {KNOWN.key_id}"
    )


def test_of_several_keys_the_first_seals_and_each_opens() -> None:
    both = KeyRing("a test", (OTHER, KNOWN))
    assert key_id_of(both.seal("a", b"new")) == OTHER.key_id
    assert both.open("a", RING.seal("a", b"old")) == b"old"
    assert both.has(KNOWN.key_id) and not RING.has(OTHER.key_id)


def test_a_key_shows_itself_nowhere_but_in_its_text() -> None:
    secret = KNOWN.text.removeprefix("pmk1.")
    assert secret not in repr(KNOWN) + str(KNOWN) + repr(RING)
    assert repr(bytes(range(32))) not in repr(KNOWN) + repr(RING)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(KNOWN)


def test_a_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "state" / "master.key"
    made = load_or_create_key_ring(file, {})
    assert load_or_create_key_ring(file, {}).key_id == made.key_id
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert made.source == str(file)


def test_the_variable_goes_before_the_file_and_makes_none(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    environment = {MASTER_KEY_VARIABLE: f"{OTHER.text},{KNOWN.text}"}
    ring = load_or_create_key_ring(file, environment)
    assert [key.key_id for key in ring.keys] == [OTHER.key_id, KNOWN.key_id]
    assert ring.source == "the variable PALYRA_MASTER_KEY"
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("  \n\n", "is empty"),
        (KNOWN.text[:-1], "key 1 is not a master key"),
        (KNOWN.text + "A", "key 1 is not a master key"),
        (KNOWN.text.replace("pmk1", "pmk2"), "key 1 is not a master key"),
        (f"{KNOWN.text}\npassword", "key 2 is not a master key"),
        ("\xff\xfe", "key 1 is not a master key"),
        ("\n".join([KNOWN.text] * 9), "has 9 keys; expected 8 at most"),
        ("x" * 5000, "is larger than 4096 bytes"),
    ],
)
def test_a_bad_key_file_is_told_without_its_content(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "master.key"
    file.write_bytes(text.encode("latin-1"))
    file.chmod(0o600)
    with pytest.raises(MasterKeyError) as caught:
        load_key_ring(file, {})
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and said in message
    assert KNOWN.text[10:30] not in message and "password" not in message


def test_a_bad_variable_is_told_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError) as caught:
        load_key_ring(tmp_path / "no", {MASTER_KEY_VARIABLE: "hunter2"})
    assert str(caught.value).startswith("the variable PALYRA_MASTER_KEY: key 1 is not a master key")
    assert "hunter2" not in str(caught.value)


def test_an_empty_variable_is_not_taken_for_an_absent_one(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    load_or_create_key_ring(file, {})
    with pytest.raises(MasterKeyError, match="PALYRA_MASTER_KEY: is empty"):
        load_key_ring(file, {MASTER_KEY_VARIABLE: ""})


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    write_key_file(file, (KNOWN,))
    file.chmod(0o640)
    with pytest.raises(MasterKeyError, match="mode 640 is too open; run: chmod 600 on it"):
        load_key_ring(file, {})


def test_a_missing_key_names_file_and_variable(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError) as caught:
        load_key_ring(tmp_path / "master.key", {})
    assert str(caught.value) == (
        f"{tmp_path / 'master.key'}: does not exist (the master key; PALYRA_MASTER_KEY is not set)"
    )
