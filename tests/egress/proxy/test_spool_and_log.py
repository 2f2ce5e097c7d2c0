"""Evidence spool and audit log: what is missing is noticed, and a closed file stays closed."""

import asyncio

import pytest

from palyra_egress.audit.log import AuditLog, AuditUnavailable
from palyra_egress.audit.reading import entries, verify_file
from palyra_egress.audit.segments import full_segments
from palyra_egress.proxy.evidence import EvidenceSpool, SpoolUnavailable, Violation
from palyra_fleet.wire.keys import SigningKey
from tests.egress.proxy.lanes import CARRYING, chaos
from tests.fakes.proxy_harness import LEASE, WORKER

VIOLATION = Violation(
    worker_id=WORKER,
    lease_id=LEASE,
    fence=1,
    reason="egress.metadata_target",
    quarantines=True,
    strike_limit=0,
    strike_window_ms=0,
    rule_id=None,
    policy_file=None,
    policy_line=None,
    policy_digest="0" * 64,
    fingerprint="0" * 64,
    target="CONNECT 169.254.169.254:80",
    decision_id="01BX5ZZKBKACTAV9WEVGEMMVS1",
    at_unix_ms=1,
)


@pytest.fixture
def key(tmp_path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "key")


def fill(directory, key: SigningKey, *, delivered: int = 0) -> None:
    spool = EvidenceSpool.open(directory, "proxy", key)
    for _ in range(3):
        spool.append(VIOLATION)
    if delivered:
        spool.acknowledge(delivered)
    spool.close()


def test_a_spool_that_lost_its_file_is_refused_and_not_numbered_from_one_again(tmp_path, key):
    fill(tmp_path / "spool", key, delivered=3)
    (tmp_path / "spool" / "evidence.jsonl").unlink()
    with pytest.raises(SpoolUnavailable, match="ends at 0, but 3 was delivered"):
        EvidenceSpool.open(tmp_path / "spool", "proxy", key)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_line_missing_from_the_spool_is_noticed(tmp_path, key, lost):
    fill(tmp_path / "spool", key)
    file = tmp_path / "spool" / "evidence.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    del lines[lost]
    file.write_bytes(b"".join(lines))
    with pytest.raises(SpoolUnavailable, match=f":{lost + 1}: does not follow"):
        EvidenceSpool.open(tmp_path / "spool", "proxy", key)


def test_a_whole_spool_opens_and_gives_what_is_pending(tmp_path, key):
    fill(tmp_path / "spool", key, delivered=1)
    spool = EvidenceSpool.open(tmp_path / "spool", "proxy", key)
    assert [evidence.seq for evidence in spool.pending] == [2, 3]
    spool.close()
    spool.close()
    with pytest.raises(SpoolUnavailable):
        spool.append(VIOLATION)


def test_a_closed_audit_log_writes_into_no_file_that_took_its_descriptor(tmp_path):
    log = AuditLog.open(tmp_path / "audit.jsonl", SigningKey.generate(), 0)
    descriptor = log._descriptor
    log.close()
    log.close()
    with (tmp_path / "other").open("wb") as other:
        assert other.fileno() == descriptor, "the number is used again"
        with pytest.raises(AuditUnavailable):
            log.append({"kind": "verdict"})
    assert (tmp_path / "other").read_bytes() == b""


async def test_under_live_traffic_the_log_goes_on_in_new_files_and_stays_one_chain(tmp_path):
    async with chaos(tmp_path, audit_segment_bytes=1) as world:
        log = world.harness.proxy.enforcement.settings.audit_file
        public_key = world.harness.proxy.enforcement.parts.receipts.key.public_key
        for lane in CARRYING:
            before = len(full_segments(log))
            await lane(world)
            async with asyncio.timeout(60):
                while len(full_segments(log)) == before:  # noqa: ASYNC110 a file appears
                    await asyncio.sleep(0.01)
    found = verify_file(log, public_key)
    assert found.files > len(CARRYING)
    assert (found.first_seq, found.unsigned_tail) == (1, 0)
    decided = [entry["decision_id"] for entry in entries(log) if entry["kind"] == "verdict"]
    ended = [entry["decision_id"] for entry in entries(log) if entry["kind"] == "transfer"]
    assert set(ended) <= set(decided)
    assert len(decided) == len(set(decided)) >= len(CARRYING)
