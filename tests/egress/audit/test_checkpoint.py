"""Signed checkpoints: who wrote the log, and whether its end is still there."""

import dataclasses
import json

import pytest

from palyra_egress.audit.chain import ChainBroken, ChainHead
from palyra_egress.audit.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from palyra_egress.audit.log import (
    CHECKPOINT_EVERY_ENTRIES,
    CHECKPOINT_EVERY_MS,
    AuditLog,
)
from palyra_egress.audit.reading import verify_file
from palyra_egress.audit.segments import checkpoint_file
from palyra_fleet.wire.keys import SigningKey

KEY, FOREIGN = SigningKey.generate(), SigningKey.generate()
COVERS = ChainHead(7, "ab" * 32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def write(path, *numbers: int, at: int = 5) -> Checkpoint:
    log = AuditLog.open(path, KEY, 0)
    for number in numbers:
        log.append({"n": number})
    log.checkpoint(at)
    log.close()
    return read_checkpoint(checkpoint_file(path))


def test_a_checkpoint_is_checked_with_the_key_that_signed_it():
    signed = Checkpoint.sign(COVERS, 9, KEY)
    signed.check(KEY.public_key, "here")
    assert Checkpoint.of(signed.fields, "here") == signed


@pytest.mark.parametrize(
    "change",
    [
        {"covers": ChainHead(8, COVERS.sha256)},
        {"covers": ChainHead(7, "ac" * 32)},
        {"at_unix_ms": 10},
        {"signature": "00" * 64},
        {"signature": "not hex"},
        {"signature": ""},
    ],
)
def test_any_other_claim_under_the_same_signature_is_refused(change):
    signed = dataclasses.replace(Checkpoint.sign(COVERS, 9, KEY), **change)
    with pytest.raises(ChainBroken, match="not valid"):
        signed.check(KEY.public_key, "here")


def test_another_key_is_told_by_its_name():
    with pytest.raises(ChainBroken, match=f"expected {KEY.thumbprint}"):
        Checkpoint.sign(COVERS, 9, FOREIGN).check(KEY.public_key, "here")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"kind": "checkpoint"}', b"\xff"])
def test_a_file_that_holds_no_checkpoint_is_told(tmp_path, content):
    file = tmp_path / "it"
    file.write_bytes(content)
    with pytest.raises(ChainBroken, match="not a checkpoint"):
        read_checkpoint(file)


def test_the_file_is_for_its_owner_alone_and_comes_back(tmp_path):
    signed = Checkpoint.sign(COVERS, 9, KEY)
    write_checkpoint(tmp_path / "it", signed)
    assert read_checkpoint(tmp_path / "it") == signed
    assert (tmp_path / "it").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["it"]


def test_a_log_tells_how_much_of_it_is_signed(path):
    write(path, 1, 2)
    log = AuditLog.open(path, KEY, 0)
    log.append({"n": 3})
    log.close()
    found = verify_file(path, KEY.public_key)
    assert (found.entries, found.checkpoints, found.unsigned_tail) == (4, 1, 1)
    assert (found.signed_by, found.signatures_checked) == (frozenset({KEY.thumbprint}), True)
    assert not verify_file(path).signatures_checked


def test_a_whole_log_made_with_another_key_does_not_verify(path):
    """Who can write the file can write a good chain; who lacks the key cannot sign it."""
    write(path, 1)
    with pytest.raises(ChainBroken, match="signed with the key"):
        verify_file(path, FOREIGN.public_key)


def test_a_log_whose_end_was_cut_off_is_refused_when_it_is_opened(path):
    write(path, 1, 2, 3)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert verify_file(path).entries == 2  # the chain alone does not show it
    with pytest.raises(ChainBroken, match="the end was cut off"):
        AuditLog.open(path, KEY, 0)


def test_a_log_that_was_taken_away_is_not_begun_anew(path):
    write(path, 1)
    path.unlink()
    with pytest.raises(ChainBroken, match="entry 1 was written"):
        AuditLog.open(path, KEY, 0)


def test_a_log_that_was_written_anew_with_a_good_chain_is_refused(path):
    write(path, 1, 2)
    other = path.with_name("other.jsonl")
    write(other, 8)
    path.write_bytes(b"".join(other.read_bytes().splitlines(keepends=True)[:1]))
    with pytest.raises(ChainBroken, match="cut off or replaced"):
        AuditLog.open(path, KEY, 0)


def test_a_checkpoint_file_that_was_edited_refuses_the_log(path):
    write(path, 1)
    file = checkpoint_file(path)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"covers_seq": 0}))
    with pytest.raises(ChainBroken, match="not valid"):
        AuditLog.open(path, KEY, 0)


def test_a_checkpoint_kept_outside_shows_what_was_cut_off_since(path):
    kept = write(path, 1, 2, 3)
    verify_file(path, KEY.public_key, kept)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(ChainBroken, match="the end was cut off"):
        verify_file(path, KEY.public_key, kept)


def test_a_checkpoint_kept_outside_shows_another_history(path):
    kept = write(path, 1, 2)
    other = path.with_name("other.jsonl")
    write(other, 1, 3)
    with pytest.raises(ChainBroken, match="saw another entry 2"):
        verify_file(other, None, kept)


def test_a_checkpoint_is_due_after_some_time_or_many_entries_and_not_without_new_ones(path):
    log = AuditLog.open(path, KEY, 1_000)
    later = 1_000 + CHECKPOINT_EVERY_MS
    assert not log.checkpoint_due(later)
    log.append({"n": 0})
    assert not log.checkpoint_due(later - 1)
    assert log.checkpoint_due(later)
    assert log.checkpoint_due(999), "a clock that was set back puts nothing off"
    for number in range(CHECKPOINT_EVERY_ENTRIES - 1):
        log.append({"n": number})
    assert log.checkpoint_due(1_001)
    log.checkpoint(later)
    assert not log.checkpoint_due(later + CHECKPOINT_EVERY_MS)
    head = log.head
    log.checkpoint(later)
    assert log.head == head, "nothing new, nothing signed"
    log.close()


def test_a_checkpoint_inside_the_log_that_covers_another_entry_is_refused(path):
    log = AuditLog.open(path, KEY, 0)
    log.append({"n": 1})
    log.append(Checkpoint.sign(COVERS, 9, KEY).fields)
    log.close()
    with pytest.raises(ChainBroken, match="covers another entry"):
        verify_file(path, KEY.public_key)
