"""The evidence spool: signed, numbered and chained, durable before the refusal is answered."""

import hashlib
import json
import os
from dataclasses import replace

import pytest

from palyra_egress.proxy.evidence import EvidenceSpool, SpoolUnavailable
from palyra_fleet.wire.dsse import VIOLATION_TYPE, open_envelope
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ViolationPayload
from tests.egress.proxy.test_spool_and_log import VIOLATION

KEY = SigningKey.generate()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "spool"


def opened(place, key: SigningKey = KEY) -> EvidenceSpool:
    return EvidenceSpool.open(place, "proxy-1", key)


def payloads(spool: EvidenceSpool) -> list[tuple[ViolationPayload, bytes]]:
    raw = [open_envelope(e.envelope, VIOLATION_TYPE, KEY.public_key) for e in spool.pending]
    return [(ViolationPayload.model_validate_json(each), each) for each in raw]


def is_a_chain(found: list[tuple[ViolationPayload, bytes]]) -> bool:
    previous = "0" * 64
    for number, (payload, raw) in enumerate(found, start=1):
        if (payload.seq, payload.previous_sha256) != (number, previous):
            return False
        previous = hashlib.sha256(raw).hexdigest()
    return True


def test_evidence_is_signed_numbered_and_chained(place):
    spool = opened(place)
    for reason in ("egress.metadata_target", "egress.canary", "egress.loop"):
        spool.append(replace(VIOLATION, reason=reason))
    found = payloads(spool)
    assert [payload.seq for payload, _ in found] == [1, 2, 3]
    assert is_a_chain(found)
    assert found[1][0].reason == "egress.canary"
    assert {payload.proxy_id for payload, _ in found} == {"proxy-1"}
    spool.close()


def test_what_the_spool_keeps_is_for_its_account_alone(place):
    """`doctor` calls anything else beside keys too open."""
    spool = opened(place)
    spool.append(VIOLATION)
    spool.acknowledge(1)
    spool.close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.iterdir()}
    assert modes == {"evidence.jsonl": 0o600, "evidence.delivered": 0o600}


def test_the_chain_goes_on_after_a_restart(place):
    for _ in range(3):
        spool = opened(place)
        spool.append(VIOLATION)
        spool.close()
    again = opened(place)
    assert len(again.pending) == 3
    assert is_a_chain(payloads(again))
    again.close()


def test_what_was_delivered_is_not_pending_again(place):
    spool = opened(place)
    for _ in range(4):
        spool.append(VIOLATION)
    spool.acknowledge(2)
    assert [evidence.seq for evidence in spool.pending] == [3, 4]
    spool.close()
    again = opened(place)
    assert [evidence.seq for evidence in again.pending] == [3, 4]
    assert again.append(VIOLATION).seq == 5
    again.close()


def test_whether_it_quarantines_survives_a_restart(place):
    spool = opened(place)
    spool.append(VIOLATION)
    spool.append(replace(VIOLATION, quarantines=False, strike_limit=3))
    spool.close()
    again = opened(place)
    assert [evidence.quarantines for evidence in again.pending] == [True, False]
    again.close()


@pytest.mark.parametrize("torn", [b"{", b'{"payloadType":', b"\x00" * 100])
def test_a_torn_last_line_is_cut_and_its_number_given_again(place, torn):
    spool = opened(place)
    spool.append(VIOLATION)
    spool.close()
    file = place / "evidence.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    again = opened(place)
    assert file.read_bytes() == whole
    assert again.append(VIOLATION).seq == 2
    assert is_a_chain(payloads(again))
    again.close()


FOREIGN = {
    "another key's line": lambda line: None,
    "no JSON": lambda line: b"no\n",
    "an empty line": lambda line: b"\n",
    "a line twice": lambda line: line + line,
    "an edited payload": lambda line: line.replace(b'"payload":"', b'"payload":"AAAA'),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_line_that_is_not_ours_is_refused(place, tmp_path, what):
    spool = opened(place)
    spool.append(VIOLATION)
    spool.close()
    file = place / "evidence.jsonl"
    changed = FOREIGN[what](file.read_bytes())
    if changed is None:
        other = opened(tmp_path / "other", SigningKey.generate())
        other.append(VIOLATION)
        other.close()
        changed = (tmp_path / "other" / "evidence.jsonl").read_bytes()
    file.write_bytes(changed)
    with pytest.raises(SpoolUnavailable, match=r"evidence\.jsonl:\d"):
        opened(place)


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"seq": null}', '{"seq": "x"}', "5", "\xff"])
def test_a_delivery_mark_that_is_none_is_refused(place, mark):
    opened(place).close()
    (place / "evidence.delivered").write_text(mark, encoding="latin-1")
    with pytest.raises(SpoolUnavailable, match="delivery mark"):
        opened(place)


def test_a_delivery_mark_is_replaced_in_one_step(place):
    spool = opened(place)
    spool.append(VIOLATION)
    (place / "evidence.new").write_text("left over from a crash")
    spool.acknowledge(1)
    assert json.loads((place / "evidence.delivered").read_text()) == {"seq": 1}
    spool.close()


def test_a_full_disk_breaks_the_spool_for_good(place):
    spool = opened(place)
    spool.append(VIOLATION)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, spool._descriptor)
    os.close(full)
    for _ in range(2):
        with pytest.raises(SpoolUnavailable):
            spool.append(VIOLATION)
    assert spool.broken
    assert len(spool.pending) == 1  # what was not written is not claimed
    spool.close()
    again = opened(place)
    assert again.append(VIOLATION).seq == 2
    again.close()


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpoolUnavailable):
        opened(tmp_path / "file" / "spool")


def test_the_spool_is_for_its_owner_alone(place):
    opened(place).close()
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "evidence.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_long_target_is_cut_to_what_the_fleet_takes(place):
    spool = opened(place)
    spool.append(replace(VIOLATION, target="GET " + "x" * 5_000))
    ((payload, _),) = payloads(spool)
    assert len(payload.target) == 600
    spool.close()
