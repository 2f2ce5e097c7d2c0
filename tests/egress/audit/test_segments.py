"""Rotation: the chain runs on from file to file, through crashes and while full files go away."""

import os
import shutil

import pytest

from palyra_egress.audit.chain import ChainBroken
from palyra_egress.audit.log import AuditLog, AuditUnavailable
from palyra_egress.audit.reading import entries, verify_file
from palyra_egress.audit.segments import checkpoint_file, full_segments, segments, set_aside
from palyra_egress.audit.summary import end_of, refusals_of_run
from palyra_fleet.wire.keys import SigningKey

KEY = SigningKey.generate()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def write(path, *batches: list[int]) -> None:
    """Each batch in a file of its own; the last is the one that is written."""
    log = AuditLog.open(path, KEY, 0)
    for index, batch in enumerate(batches):
        for number in batch:
            log.append({"n": number})
        if index < len(batches) - 1:
            log.rotate()
    log.close()


def numbers(path) -> list[object]:
    return [entry.get("n") for entry in entries(path)]


def test_a_full_file_is_named_for_its_first_entry_and_the_chain_runs_on(path):
    write(path, [1, 2, 3], [4, 5], [6])
    assert [file.name for file in segments(path)] == [
        "audit.000000000001.jsonl",
        "audit.000000000004.jsonl",
        "audit.jsonl",
    ]
    found = verify_file(path, KEY.public_key)
    assert (found.entries, found.first_seq, found.files) == (6, 1, 3)
    assert numbers(path) == [1, 2, 3, 4, 5, 6]


def test_full_files_are_for_their_owner_alone(path):
    write(path, [1], [2])
    assert {file.stat().st_mode & 0o777 for file in segments(path)} == {0o600}


@pytest.mark.parametrize("batches", [([1, 2], []), ([1], [2], [])])
def test_a_log_that_was_closed_right_after_a_rotation_goes_on(path, batches):
    write(path, *batches)
    write(path, [9])
    assert numbers(path)[-1] == 9
    assert verify_file(path).entries == sum(map(len, batches)) + 1


def test_a_restart_between_goes_on_and_names_the_next_full_file_rightly(path):
    write(path, [1, 2])
    write(path, [3], [4])
    assert full_segments(path)[0].name == "audit.000000000001.jsonl"
    assert verify_file(path).entries == 4


def test_old_files_may_go_and_the_rest_says_where_it_begins(path):
    write(path, [1, 2], [3], [4])
    full_segments(path)[0].unlink()
    found = verify_file(path, KEY.public_key)
    assert (found.first_seq, found.entries, found.head.seq) == (3, 2, 4)
    write(path, [5])
    assert numbers(path) == [3, 4, 5]


def test_a_file_missing_between_breaks_the_chain(path):
    write(path, [1], [2], [3])
    full_segments(path)[1].unlink()
    with pytest.raises(ChainBroken, match="seq is 3; expected 2"):
        verify_file(path)


def test_a_full_file_alone_verifies_by_itself(path):
    write(path, [1], [2, 3], [4])
    second = full_segments(path)[1]
    assert (verify_file(second).first_seq, verify_file(second).entries) == (2, 2)


def test_a_full_file_that_was_edited_breaks_the_chain(path):
    write(path, [1, 2], [3])
    full = full_segments(path)[0]
    full.write_bytes(full.read_bytes().replace(b'"n":1', b'"n":7'))
    with pytest.raises(ChainBroken, match=r"audit\.000000000001\.jsonl:1: the digest"):
        verify_file(path)


def test_a_crash_between_the_two_steps_of_a_rotation_leaves_the_log_as_it_was(path):
    write(path, [1, 2])
    os.link(path, path.with_name("audit.000000000001.jsonl"))
    write(path, [3])
    assert (full_segments(path), numbers(path)) == ([], [1, 2, 3])


def test_a_crash_before_the_new_file_took_its_place_leaves_nothing_behind_that_matters(path):
    write(path, [1])
    path.with_name("audit.jsonl.new").write_bytes(b"left over")
    write(path, [2], [3])
    assert numbers(path) == [1, 2, 3]


def test_an_empty_file_after_a_torn_full_one_is_refused(path):
    write(path, [1, 2], [])
    full = full_segments(path)[0]
    full.write_bytes(full.read_bytes()[:-5])
    with pytest.raises(ChainBroken, match="torn"):
        AuditLog.open(path, KEY, 0)


def test_the_second_writer_is_refused_after_a_rotation_too(path):
    log = AuditLog.open(path, KEY, 0)
    log.append({"n": 1})
    log.rotate()
    with pytest.raises(AuditUnavailable, match="another process"):
        AuditLog.open(path, KEY, 0)
    log.close()


def test_a_rotation_that_cannot_be_done_breaks_the_log(path):
    log = AuditLog.open(path, KEY, 0)
    log.append({"n": 1})
    shutil.copy(path, path.with_name("audit.000000000001.jsonl"))  # the name is taken
    with pytest.raises(AuditUnavailable, match="cannot rotate"):
        log.rotate()
    assert log.broken
    with pytest.raises(AuditUnavailable):
        log.append({"n": 2})
    log.close()


def test_a_rotation_starts_the_size_anew(path):
    log = AuditLog.open(path, KEY, 0)
    log.append({"n": 1})
    assert log.size_bytes == path.stat().st_size
    log.rotate()
    assert log.size_bytes == path.stat().st_size == 0
    log.append({"n": 2})
    assert log.size_bytes == path.stat().st_size > 0
    log.close()


def test_the_log_knows_its_size_when_it_is_opened_again(path):
    write(path, [1, 2])
    log = AuditLog.open(path, KEY, 0)
    assert log.size_bytes == path.stat().st_size
    log.close()


def test_other_files_of_the_directory_are_not_the_logs(path):
    write(path, [1], [2])
    for name in ("audit.1.jsonl", "other.000000000001.jsonl", "audit.000000000001.jsonl.gz"):
        path.with_name(name).write_text("no entry\n")
    assert checkpoint_file(path) not in segments(path)
    assert verify_file(path).entries == 2


def test_the_path_of_the_log_never_names_nothing(path):
    write(path, [1])
    fresh = path.with_name("audit.jsonl.new")
    fresh.touch()
    set_aside(path, 1, fresh)
    assert path.exists()
    assert numbers(path) == [1]


def test_what_a_run_was_refused_is_told_over_a_rotation(path):
    refused = {"kind": "verdict", "effect": "deny", "run_id": "r", "reason": "egress.no_lease"}
    log = AuditLog.open(path, KEY, 0)
    log.append(refused)
    since = end_of(path)
    log.append(refused)
    log.rotate()
    log.append(refused)
    log.close()
    assert refusals_of_run(path, since, "r") == ["2 x a request  egress.no_lease"]
