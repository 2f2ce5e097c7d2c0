"""How long quarantines took, as the overview tells it: in bands that lose nothing."""

import pytest

from palyra_fleet.console.latency import LOOKED_AT, picture
from palyra_fleet.wire.models import ViolationPayload, ViolationView

AT = 1_795_874_400_000
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
NONE = "0" * 64


def evidence(took_ms: int, outcome: str = "quarantined") -> ViolationView:
    """Evidence of a violation that the fleet held so much later."""
    payload = ViolationPayload(
        **{"proxy_id": "p", "seq": 1, "previous_sha256": NONE, "fingerprint": NONE},
        **{"worker_id": ULID, "lease_id": ULID, "decision_id": ULID, "fence": 1},
        **{"reason": "egress.metadata_target", "consequence": "quarantine", "target": "GET x"},
        **{"rule_id": None, "policy_file": None, "policy_line": None, "policy_digest": NONE},
        at_unix_ms=AT,
    )
    return ViolationView(
        evidence_sha256=NONE, received_at_unix_ms=AT + took_ms, outcome=outcome, payload=payload
    )


@pytest.mark.parametrize(
    ("took_ms", "words", "tone"),
    [
        (-7, "up to 10 ms", "good"),  # the proxy's clock is ahead
        (0, "up to 10 ms", "good"),
        (10, "up to 10 ms", "good"),
        (11, "up to 100 ms", "good"),
        (100, "up to 100 ms", "good"),
        (1_000, "up to 1 s", "good"),
        (1_001, "up to 10 s", "warn"),
        (10_000, "up to 10 s", "warn"),
        (10_001, "longer", "bad"),
        (AT, "longer", "bad"),
    ],
)
def test_each_quarantine_is_in_the_band_that_says_how_long_it_took(
    took_ms: int, words: str, tone: str
) -> None:
    drawn = picture([evidence(took_ms)])
    assert drawn is not None
    assert [(one.words, one.tone) for one in drawn.bands if one.count] == [(words, tone)]
    assert drawn.middle_ms == drawn.longest_ms == max(0, took_ms)


def test_only_what_quarantined_somebody_counts_and_of_that_the_newest() -> None:
    struck = [evidence(50_000, "struck"), evidence(50_000, "already_quarantined")]
    newest = [evidence(ms) for ms in (5, 7, 2_000)]
    drawn = picture([*struck, *newest, *[evidence(30)] * (LOOKED_AT - 3), *[evidence(20_000)] * 9])
    assert drawn is not None
    assert [one.count for one in drawn.bands] == [2, LOOKED_AT - 3, 0, 1, 0]
    assert (drawn.count, drawn.middle_ms, drawn.longest_ms) == (LOOKED_AT, 30, 2_000)
    assert drawn.largest == LOOKED_AT - 3


def test_where_nobody_was_quarantined_there_is_no_picture() -> None:
    assert picture([]) is None
    assert picture([evidence(5, "recorded")]) is None
