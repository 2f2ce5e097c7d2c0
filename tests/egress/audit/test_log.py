"""The log on disk: one writer, one chain over restarts, and a stop to everything when it fails."""

import json
import os

import pytest

from palyra_egress.audit.chain import ChainBroken
from palyra_egress.audit.log import AuditLog, AuditUnavailable
from palyra_egress.audit.reading import entries, verify_file
from palyra_fleet.wire.keys import SigningKey
from tests.egress.proxy.lanes import CARRYING, chaos

KEY = SigningKey.generate()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit" / "audit.jsonl"


def write(path, *numbers: int) -> None:
    log = AuditLog.open(path, KEY, 0)
    for number in numbers:
        log.append({"n": number})
    log.close()


def test_the_chain_goes_on_when_the_log_is_opened_again(path):
    write(path, 1, 2)
    write(path)
    write(path, 3)
    assert verify_file(path).entries == 3
    assert [entry["n"] for entry in entries(path)] == [1, 2, 3]


def test_the_log_is_for_its_owner_alone(path):
    write(path, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_writer_is_refused_while_the_first_is_there(path):
    log = AuditLog.open(path, KEY, 0)
    with pytest.raises(AuditUnavailable, match="another process"):
        AuditLog.open(path, KEY, 0)
    log.append({"n": 1})
    log.close()
    write(path, 2)
    assert verify_file(path).entries == 2


@pytest.mark.parametrize("torn", [b"{", b'{"a":1', b"x" * 5_000, b"\x00"])
@pytest.mark.parametrize("before", [(), (1,), (1, 2, 3)])
def test_a_torn_last_line_is_cut_and_said_so(path, torn, before):
    write(path, *before)
    with path.open("ab") as file:
        file.write(torn)
    log = AuditLog.open(path, KEY, 77)
    log.append({"n": 9})
    log.close()
    assert verify_file(path).entries == len(before) + 2
    recovered = list(entries(path))[-2]
    assert (recovered["kind"], recovered["at_unix_ms"]) == ("recovered", 77)
    assert recovered["torn_bytes_dropped"] == len(torn)


@pytest.mark.parametrize("last", [b"no json\n", b"[]\n", b'{"seq":1}\n', b"\n", b"null\n"])
def test_a_last_line_that_is_no_entry_is_refused(path, last):
    write(path, 1)
    with path.open("ab") as file:
        file.write(last)
    with pytest.raises(ChainBroken):
        AuditLog.open(path, KEY, 0)


def test_a_last_line_that_was_edited_is_refused(path):
    write(path, 1, 2)
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":3'))
    with pytest.raises(ChainBroken, match="changed"):
        AuditLog.open(path, KEY, 0)


def test_a_log_longer_than_its_tail_is_opened_at_its_end(path):
    log = AuditLog.open(path, KEY, 0)
    for _ in range(40):
        log.append({"text": "x" * 40_000})
    log.close()
    write(path, 1)
    assert verify_file(path).entries == 41


def test_a_log_whose_half_line_cannot_be_taken_back_is_broken_for_good(path):
    log = AuditLog.open(path, KEY, 0)
    log.append({"n": 1})
    kept = os.dup(log._descriptor)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._descriptor)
    with pytest.raises(AuditUnavailable):
        log.append({"n": 2})
    assert log.broken
    os.dup2(kept, log._descriptor)  # the disk has room again: not for this log
    with pytest.raises(AuditUnavailable):
        log.append({"n": 3})
    assert (log.head.seq, log.unsynced) == (1, False)
    log.close()
    os.close(full)
    os.close(kept)
    assert verify_file(path).entries == 1


def test_a_sync_that_fails_breaks_the_log(path):
    log = AuditLog.open(path, KEY, 0)
    log.append({"n": 1})
    reader, writer = os.pipe()  # a pipe cannot be synced
    os.dup2(writer, log._descriptor)
    with pytest.raises(AuditUnavailable):
        log.sync()
    assert log.broken
    for descriptor in (reader, writer):
        os.close(descriptor)
    log.close()


def test_what_is_not_synced_is_known(path):
    log = AuditLog.open(path, KEY, 0)
    assert not log.unsynced
    log.append({"n": 1})
    assert log.unsynced
    log.sync()
    assert not log.unsynced
    log.close()


def test_a_device_that_takes_nothing_is_told_when_it_is_opened(path):
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    with pytest.raises(AuditUnavailable):
        log = AuditLog.open(path, KEY, 0)
        log.append({"n": 1})


def test_a_log_that_cannot_be_opened_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AuditUnavailable):
        AuditLog.open(tmp_path / "file" / "audit.jsonl", KEY, 0)


def test_a_listener_hears_each_entry_after_it_was_written(path):
    heard = []
    log = AuditLog.open(path, KEY, 0)
    log.on_entry = lambda fields: heard.append((fields["n"], len(path.read_bytes().splitlines())))
    log.append({"n": 1})
    log.append({"n": 2})
    log.close()
    assert heard == [(1, 1), (2, 2)]


def test_each_entry_is_one_line_whatever_it_holds(path):
    text = 'line\nend \r\u2028 "quoted" \ud800'
    log = AuditLog.open(path, KEY, 0)
    log.append({"text": text})
    log.close()
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line)["text"] == text
    assert verify_file(path).entries == 1


@pytest.mark.parametrize("lane", CARRYING)
async def test_with_a_full_disk_everything_is_refused(tmp_path, lane):
    async with chaos(tmp_path) as world:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, world.core.audit._descriptor)
        os.close(full)
        got = await lane(world)
        assert b"egress.audit_unavailable" in got or got in (b"", b"refused 503", b"refused 1")
        again = await lane(world)
        assert b" 200 OK" not in again
        world.nothing_was_dialled()
        await world.everything_is_closed()
