"""WorkerAttestation.validate: order and texts as published; the corpus cases; the nonce book."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palyra_fleet.attestation.evidence import WorkerAttestation, WorkerAttestationExpectation
from palyra_fleet.attestation.nonces import MAX_PER_KEY, NonceBook
from palyra_fleet.refusals import FleetReason, Refusal
from tests.fakes.fleet_evidence import compatible_attestation, expectation_for
from tests.fakes.ledger_world import ulid

ROOT = Path(__file__).resolve().parents[3]
CORPORA = Path(os.environ.get("PALYRA_CORPORA", ROOT.parent / "shared" / "corpora"))
FILE = CORPORA / "seed_scenarios.jsonl"
GOOD = compatible_attestation(ulid(1))
EXPECTED = expectation_for(GOOD)


def _cases() -> list[Any]:
    if not FILE.exists():
        skip = pytest.mark.skip(reason="the shared corpora are not here; set PALYRA_CORPORA")
        return [pytest.param(None, marks=skip, id="corpora-absent")]
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    return [pytest.param(r, id=r["id"]) for r in rows if r["kind"] == "worker_attestation"]


@pytest.mark.parametrize("case", _cases())
def test_every_attestation_case_of_the_corpus_is_refused_as_expected(case: Any) -> None:
    given = dict(case["input"])
    now = given.pop("now")
    other = given.pop("expected_image_digest", None)
    expectation = EXPECTED
    if other is not None:
        expectation = replace(EXPECTED, image_digests_sha256=frozenset({other}))
    refusal = replace(GOOD, **given).validate(expectation, now)
    assert refusal is not None
    assert refusal.reason.value == f"attestation.{case['expected']}"


# Every row spoils one more check, from the last of the published order to the first, so that each
# refusal shows its check goes before all the ones spoiled above it.
_LADDER: tuple[tuple[dict[str, Any], FleetReason, str], ...] = (
    (
        {"wit_abi_version": "other"},
        FleetReason.INCOMPATIBLE,
        "worker compatibility check failed",
    ),
    (
        {"artifact_digest_sha256": "9" * 64},
        FleetReason.DIGEST_ARTIFACT,
        "worker attestation artifact digest did not match the expected value",
    ),
    (
        {"build_digest_sha256": "9" * 64},
        FleetReason.DIGEST_BUILD,
        "worker attestation build digest did not match the expected value",
    ),
    (
        {"image_digest_sha256": "9" * 64},
        FleetReason.DIGEST_IMAGE,
        "worker attestation image digest did not match the expected value",
    ),
    (
        {"egress_proxy_attested": False},
        FleetReason.MISSING_BINDING,
        "worker attestation is missing an egress proxy binding",
    ),
    (
        {"expires_at_unix_ms": 2_000},
        FleetReason.ATTESTATION_EXPIRED,
        "worker attestation has expired",
    ),
    (
        {"issued_at_unix_ms": 2_001},
        FleetReason.NOT_YET_VALID,
        "worker attestation is not yet valid",
    ),
    ({"worker_id": "w"}, FleetReason.ID_INVALID, "worker attestation worker_id is not a ULID"),
)


def test_checks_run_in_the_published_order_with_the_published_texts() -> None:
    assert GOOD.validate(EXPECTED, 2_000) is None
    spoiled = GOOD
    for changes, reason, text in _LADDER:
        spoiled = replace(spoiled, **changes)
        assert spoiled.validate(EXPECTED, 2_000) == Refusal(reason, text)


@pytest.mark.parametrize("now", [999, 10_000_000])  # just before issue, and at expiry
def test_an_attestation_holds_from_issue_until_just_before_expiry(now: int) -> None:
    assert GOOD.validate(EXPECTED, now) is not None
    assert GOOD.validate(EXPECTED, 1_000) is None
    assert GOOD.validate(EXPECTED, 9_999_999) is None


def test_the_default_expectation_refuses_even_a_good_attestation() -> None:
    assert GOOD.validate(WorkerAttestationExpectation(), 2_000) is not None


@pytest.mark.parametrize(
    "field", ["image_digests_sha256", "build_digests_sha256", "artifact_digests_sha256"]
)
def test_an_empty_set_of_reference_values_refuses(field: str) -> None:
    expectation = replace(EXPECTED, **{field: frozenset()})  # type: ignore[arg-type]
    assert GOOD.validate(expectation, 2_000) is not None


def test_a_claimed_binding_alone_proves_nothing() -> None:
    expectation = replace(EXPECTED, egress_proxy_binding_verified=False)
    refusal = GOOD.validate(expectation, 2_000)
    assert refusal is not None
    assert refusal.reason is FleetReason.MISSING_BINDING


@pytest.mark.parametrize(("authority", "accepted"), [(None, False), ("8" * 64, True)])
def test_a_required_capability_authority_must_be_named(
    authority: str | None, accepted: bool
) -> None:
    expectation = replace(EXPECTED, capability_authority_sha256="8" * 64)
    attestation: WorkerAttestation = replace(GOOD, capability_authority_sha256=authority)
    assert (attestation.validate(expectation, 2_000) is None) is accepted


def test_the_nonce_stays_out_of_the_repr() -> None:
    assert GOOD.nonce not in repr(GOOD)


# nonce, key, purpose and time of the second step; the nonce "n" was issued to "k" at 1000 for 60 s
@pytest.mark.parametrize(
    ("nonce", "key", "purpose", "now", "accepted"),
    [
        ("n", "k", "register", 1_000, True),
        ("n", "k", "register", 60_999, True),
        ("n", "k", "register", 61_000, False),  # late
        ("n", "k", "register", 10, True),  # a clock that moved back
        ("x", "k", "register", 1_000, False),
        ("n", "other", "register", 1_000, False),
        ("n", "k", "another", 1_000, False),
    ],
)
def test_a_nonce_is_bound_to_key_purpose_and_time(
    nonce: str, key: str, purpose: str, now: int, accepted: bool
) -> None:
    book = NonceBook(60_000)
    assert book.issue("n", "k", "register", 1_000) == 61_000
    assert isinstance(book.spend(nonce, key, purpose, now), int) is accepted


def test_a_nonce_is_spent_by_its_first_use_and_a_strangers_try_spends_nothing() -> None:
    book = NonceBook(60_000)
    book.issue("n", "k", "register", 1_000)
    assert isinstance(book.spend("n", "stranger", "register", 1_000), Refusal)
    assert book.spend("n", "k", "register", 1_050) == 1_000  # when it was issued
    assert isinstance(book.spend("n", "k", "register", 1_050), Refusal)


def test_a_clock_that_moves_back_does_not_revive_a_nonce() -> None:
    """Invariant 11."""
    book = NonceBook(60_000)
    book.issue("n", "k", "register", 1_000)
    book.issue("m", "k", "register", 61_000)
    assert isinstance(book.spend("n", "k", "register", 1_001), Refusal)


def test_a_key_has_so_many_nonces_outstanding_and_no_more() -> None:
    book = NonceBook(60_000)
    for number in range(MAX_PER_KEY):
        assert book.issue(f"n{number}", "k", "register", 1_000) == 61_000
    refused = book.issue("more", "k", "register", 1_000)
    assert isinstance(refused, Refusal)
    assert refused.reason is FleetReason.NONCE_LIMIT
    assert book.issue("other", "j", "register", 1_000) == 61_000
    assert book.issue("later", "k", "register", 61_000) == 121_000
