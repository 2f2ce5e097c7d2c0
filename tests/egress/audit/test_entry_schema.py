"""The published schema holds for every entry that the program really writes, kind by kind."""

import json
from pathlib import Path

import jsonschema
import pytest

from palyra_egress.audit import entries as made
from palyra_egress.audit.chain import ChainHead
from palyra_egress.audit.checkpoint import Checkpoint
from palyra_egress.audit.entry_schema import COMMON, KINDS, entry_schema, field_table
from palyra_egress.audit.log import AuditLog
from palyra_egress.policy.policy_diff import PolicyChange
from palyra_egress.reasons import Reason
from palyra_fleet.wire.keys import SigningKey
from tests.egress.proxy.lanes import CARRYING, chaos

KEY = SigningKey.generate()
VALIDATOR = jsonschema.Draft202012Validator(entry_schema())
DOCS = Path(__file__).parents[3] / "docs" / "audit.md"


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(entry_schema())


async def test_what_a_proxy_writes_about_real_traffic_fits(tmp_path):
    async with chaos(tmp_path) as world:
        for lane in CARRYING:
            await lane(world)
        await world.harness.send(b"GET http://nowhere.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
        await world.harness.send(b"nonsense\r\n\r\n")
        log = world.harness.proxy.enforcement.settings.audit_file
    found = lines_of(log)
    for entry in found:
        VALIDATOR.validate(entry)
    assert {entry["kind"] for entry in found} >= {"verdict", "transfer", "checkpoint"}
    assert any(entry.get("early") for entry in found)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("receipt", made.receipt_entry("ab" * 32, "cd" * 32, 1)),
        ("policy", made.policy_entry(PolicyChange("cd" * 32, None, ("p: GET x",)), 1)),
        ("unanswered", made.unanswered_entry(3, 1)),
        ("transfer", made.transfer_entry("01A", "complete", 1, 2, 3, 4)),
        ("verdict", made.early_entry(Reason.NO_IDENTITY, None, "01A", "", 1)),
    ],
)
def test_each_kind_of_the_module_fits(tmp_path, kind, fields):
    log = AuditLog.open(tmp_path / "a.jsonl", KEY, 0)
    log.append(fields)
    log.close()
    (entry,) = lines_of(tmp_path / "a.jsonl")
    assert entry["kind"] == kind
    VALIDATOR.validate(entry)


def test_a_recovery_and_a_checkpoint_fit(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"torn")
    log = AuditLog.open(path, KEY, 7)
    log.checkpoint(8)
    log.close()
    found = lines_of(path)
    assert [entry["kind"] for entry in found] == ["recovered", "checkpoint"]
    for entry in found:
        VALIDATOR.validate(entry)


def test_an_unknown_field_and_an_unknown_kind_do_not_fit():
    good = {"seq": 1, "previous_sha256": "0" * 64, "sha256": "0" * 64}
    good |= made.unanswered_entry(1, 1)
    VALIDATOR.validate(good)
    for bad in ({"more": 1}, {"kind": "other"}, {"connections": "1"}):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(good | bad)


def test_the_checkpoints_table_row_has_its_fields():
    fields = Checkpoint.sign(ChainHead(), 1, KEY).fields
    assert set(fields) == {"kind", "at_unix_ms", *KINDS["checkpoint"][1]}
    assert {"kind", "at_unix_ms"} <= set(COMMON)


def test_the_table_in_the_docs_is_this_one():
    assert field_table() in DOCS.read_text(encoding="utf-8")
