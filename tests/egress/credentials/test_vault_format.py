"""Mirror of credentials/vault_format.py: a vault is used whole, or not at all."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.vault_format import (
    MAX_RECORDS,
    Vault,
    VaultDamaged,
    VaultError,
    VaultKeyMissing,
    decode,
    encode,
)
from palyra_fleet.wire.sealing import MasterKey

KEY = MasterKey.of(bytes(range(32)))
OTHER = MasterKey.of(bytes(range(1, 33)))
EMPTY = Vault("0" * 32, 1)
NAMES = st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=200)

type Document = dict[str, Any]


def filled() -> Vault:
    vault = EMPTY.with_record("global/one", "first-secret", KEY, 1_000)
    return vault.with_record("global/two", "second-secret", KEY, 2_000)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_what_is_set_is_read_back(values: dict[str, str]) -> None:
    vault = EMPTY
    for at, (name, value) in enumerate(values.items()):
        vault = vault.with_record(name, value, KEY, at)
    content = encode(vault, KEY)
    read = decode(content, KEY, "v")
    assert {name: read.value(name, KEY) for name in read.facts} == values
    assert read.generation == 1 + len(values)
    assert not any(value.encode() in content for value in values.values())


def test_facts_are_kept_and_tell_nothing_of_the_value() -> None:
    vault = filled().with_record("global/one", "changed-secret", KEY, 9_000)
    row = decode(encode(vault, KEY), KEY, "v").facts["global/one"]
    assert (row.created_at_unix_ms, row.updated_at_unix_ms, row.value_bytes) == (1_000, 9_000, 14)
    assert "secret" not in repr(row) + repr(vault)


def test_a_removed_record_is_gone_and_counts_as_a_change() -> None:
    vault = filled().without_record("global/one")
    read = decode(encode(vault, KEY), KEY, "v")
    assert list(read.facts) == ["global/two"] and read.generation == 4


def test_a_vault_sealed_again_opens_with_the_new_key_alone() -> None:
    vault = filled().sealed_again(KEY, OTHER)
    read = decode(encode(vault, OTHER), OTHER, "v")
    assert read.value("global/one", OTHER) == "first-secret"
    with pytest.raises(VaultKeyMissing) as caught:
        decode(encode(vault, OTHER), KEY, "v")
    assert str(caught.value) == (
        f"v: is sealed with the master key {OTHER.key_id}; ours has the id {KEY.key_id}"
    )


def test_a_full_vault_takes_no_further_record() -> None:
    facts = {f"n{i}": filled().facts["global/one"] for i in range(MAX_RECORDS)}
    full = Vault("0" * 32, 1, facts, dict.fromkeys(facts, b""))
    with pytest.raises(VaultError, match="holds 1000 records at most"):
        full.with_record("one-more", "some-secret", KEY, 0)


def _drop(document: Document) -> None:
    del document["records"]["global/one"]


def _swap(document: Document) -> None:
    records = document["records"]
    records["global/one"], records["global/two"] = records["global/two"], records["global/one"]


def _roll_back(document: Document) -> None:
    old = json.loads(encode(EMPTY.with_record("global/one", "older-secret", KEY, 1), KEY))
    document["records"]["global/one"] = old["records"]["global/one"]


def _roll_back_manifest(document: Document) -> None:
    old = json.loads(encode(EMPTY.with_record("global/one", "older-secret", KEY, 1), KEY))
    document["manifest"] = old["manifest"]


def _add(document: Document) -> None:
    sealed = KEY.seal("vault:global/three", b"planted-secret")
    document["records"]["global/three"] = base64.b64encode(sealed).decode()


def _rename(document: Document) -> None:
    document["records"]["global/three"] = document["records"].pop("global/one")


def _wrong_key_id(document: Document) -> None:
    document["key_id"] = OTHER.key_id


def _bad_base64(document: Document) -> None:
    document["records"]["global/one"] = "ä" * 8


def _record_as_manifest(document: Document) -> None:
    document["manifest"] = document["records"]["global/one"]


def _cut_manifest(document: Document) -> None:
    document["manifest"] = document["manifest"][:40]


def _unknown_key(document: Document) -> None:
    document["comment"] = "hello"


def _no_records(document: Document) -> None:
    document["records"] = None


TAMPERINGS: list[tuple[Callable[[Document], None], str]] = [
    (_drop, "the record global/one was taken away"),
    (_swap, "the record global/one is not the one that was set (changed, swapped or older)"),
    (_roll_back, "the record global/one is not the one that was set (changed, swapped or older)"),
    (_roll_back_manifest, "the record global/one is not the one that was set"),
    (_add, "1 records were put in by hand"),
    (_rename, "the record global/one was taken away"),
    (_bad_base64, "a record is not base64"),
    (_record_as_manifest, "'vault-manifest': it was changed, or is another record's"),
    (_cut_manifest, "not a sealed record"),
    (_unknown_key, "look at comment"),
    (_no_records, "look at records"),
]


@pytest.mark.parametrize(("tamper", "said"), TAMPERINGS)
def test_tampering_is_noticed_and_told(tamper: Callable[[Document], None], said: str) -> None:
    document = json.loads(encode(filled(), KEY))
    tamper(document)
    with pytest.raises(VaultDamaged) as caught:
        decode(json.dumps(document).encode(), KEY, "dir/vault.json")
    message = str(caught.value)
    assert message.startswith("dir/vault.json: ") and said in message
    assert "restore the file from a backup" in message and "secret\n" not in message


def test_a_key_id_that_was_changed_is_noticed() -> None:
    document = json.loads(encode(filled(), KEY))
    _wrong_key_id(document)
    content = json.dumps(document).encode()
    with pytest.raises(VaultKeyMissing):
        decode(content, KEY, "v")
    with pytest.raises(VaultDamaged, match="its key id is not the one"):
        decode(content, MasterKey.of(bytes(range(32)), older=(OTHER,)), "v")


def test_a_later_version_says_so() -> None:
    document = json.loads(encode(EMPTY, KEY)) | {"version": 2}
    with pytest.raises(VaultError, match="v: has version 2; this program reads 1"):
        decode(json.dumps(document).encode(), KEY, "v")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "palyra-vault", "format": "palyra-vault"}',
        b'{"format": "palyra-vault", "version": "1"}',
    ],
)
def test_garbage_is_no_vault(content: bytes) -> None:
    with pytest.raises(VaultDamaged, match="v: is not a vault"):
        decode(content, KEY, "v")


@given(st.data())
def test_a_vault_cut_short_anywhere_is_refused(data: st.DataObject) -> None:
    content = encode(EMPTY.with_record("a", "some-secret", KEY, 0), KEY)
    length = data.draw(st.integers(0, len(content) - 3))
    with pytest.raises(VaultDamaged):
        decode(content[:length], KEY, "v")


@given(st.data())
def test_a_changed_byte_never_changes_a_value(data: st.DataObject) -> None:
    content = bytearray(encode(filled(), KEY))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    try:
        read = decode(bytes(content), KEY, "v")
    except VaultError:
        return
    assert read.value("global/one", KEY) == "first-secret"
    assert read.value("global/two", KEY) == "second-secret"
    assert len(read.facts) == 2 and read.generation == 3
