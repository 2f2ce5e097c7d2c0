"""The `audit` commands as a person or a SIEM's agent calls them."""

import base64
import json

import pytest

from palyra_egress.audit.entries import receipt_entry, transfer_entry
from palyra_egress.audit.entry_schema import entry_schema
from palyra_egress.audit.log import AuditLog
from palyra_egress.audit.segments import checkpoint_file
from palyra_egress.cli.main import main
from palyra_fleet.wire.keys import SigningKey

KEY = SigningKey.generate()
PUBLIC = base64.b64encode(KEY.public_key).decode()


@pytest.fixture
def log(tmp_path):
    """Two transfers, a receipt and two checkpoints, in two files."""
    path = tmp_path / "audit.jsonl"
    written = AuditLog.open(path, KEY, 0)
    written.append(transfer_entry("01A", "complete", 1, 2, 3, 4))
    written.checkpoint(5)
    written.rotate()
    written.append(receipt_entry("ab" * 32, "cd" * 32, 6))
    written.append(transfer_entry("01B", "egress.quarantined", 1, 2, 3, 7))
    written.checkpoint(8)
    written.close()
    return path


def test_verify_says_what_held(log, capsys):
    assert main(["audit", "verify", str(log), "--key", PUBLIC]) == 0
    told = capsys.readouterr().out
    assert "5 entries in 2 files, the chain holds" in told
    assert "2 checkpoints, signatures valid" in told
    assert "0 entries after the last checkpoint" in told


def test_verify_without_a_key_says_that_nothing_was_checked_with_one(log, capsys):
    assert main(["audit", "verify", str(log)]) == 0
    assert "signatures not checked (--key)" in capsys.readouterr().out


def test_verify_with_another_key_says_no(log, capsys):
    other = base64.b64encode(SigningKey.generate().public_key).decode()
    assert main(["audit", "verify", str(log), "--key", other]) == 1
    told = capsys.readouterr().err
    assert "audit.000000000001.jsonl:2: signed with the key" in told


@pytest.mark.parametrize("key", ["", "short", "AAAA", "€", PUBLIC + "AA"])
def test_a_key_that_is_none_is_told_with_the_way_to_get_it(log, capsys, key):
    assert main(["audit", "verify", str(log), "--key", key]) == 2
    assert "proxy key --state-dir" in capsys.readouterr().err


def test_verify_after_old_files_went_says_where_it_begins(log, capsys):
    log.with_name("audit.000000000001.jsonl").unlink()
    assert main(["audit", "verify", str(log)]) == 0
    assert "begins with entry 3: older files are not here" in capsys.readouterr().out


def test_verify_with_a_kept_checkpoint_finds_a_cut_end(log, tmp_path, capsys):
    kept = tmp_path / "kept.json"
    kept.write_bytes(checkpoint_file(log).read_bytes())
    assert main(["audit", "verify", str(log), "--checkpoint", str(kept)]) == 0
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:1]))
    assert main(["audit", "verify", str(log)]) == 0
    assert main(["audit", "verify", str(log), "--checkpoint", str(kept)]) == 1
    assert "the end was cut off" in capsys.readouterr().err


def test_export_prints_events_and_counts_what_has_none(log, capsys):
    assert main(["audit", "export", "--to", "ocsf", str(log)]) == 0
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["metadata"]["correlation_uid"] for event in events] == ["01A", "01B"]
    assert "3 entries" in err


def test_show_prints_the_entries_of_every_file(log, capsys):
    assert main(["audit", "show", str(log)]) == 0
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["transfer", "checkpoint", "receipt", "transfer", "checkpoint"]


def test_schema_prints_the_schema(capsys):
    assert main(["audit", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == entry_schema()
