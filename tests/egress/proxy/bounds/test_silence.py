"""Whose silence it is, and when it has lasted too long."""

import pytest

from palyra_egress.proxy.bounds.deadlines import Deadlines
from palyra_egress.proxy.bounds.silence import NOTHING_WAITS, Progress, Silence, Waits
from palyra_egress.reasons import Reason

DEADLINES = Deadlines(body_s=60, silence_s=600, stall_s=60)
BODY = Progress(10, 0, False, False, promises_end=True, awaits_answer=False)
CALL = BODY._replace(promises_end=False)
ASKED = Progress(10, 0, True, False, promises_end=True, awaits_answer=True)
ANSWER = Progress(10, 5, True, True, promises_end=True, awaits_answer=False)
TALK = Progress(10, 5, False, True, promises_end=True, awaits_answer=False)
FOR_SERVER = Waits(for_server=1, own=1)
FOR_WORKER = Waits(for_worker=1, own=1)


def after(seconds: int, progress: Progress, waits: Waits = NOTHING_WAITS) -> Reason | None:
    """What is said so long after something has moved."""
    silence = Silence(0)
    assert silence.look(progress, waits, DEADLINES, 0) is None
    return silence.look(progress, waits, DEADLINES, seconds * 1000)


@pytest.mark.parametrize(
    ("progress", "waits", "patience_s", "reason"),
    [
        (BODY, NOTHING_WAITS, 60, Reason.REQUEST_TIMEOUT),
        (BODY, FOR_SERVER, 600, Reason.UPSTREAM_TIMEOUT),
        (BODY, FOR_WORKER, 600, Reason.DEADLINE),
        (CALL, NOTHING_WAITS, 600, Reason.DEADLINE),
        (CALL, FOR_SERVER, 600, Reason.UPSTREAM_TIMEOUT),
        (TALK, NOTHING_WAITS, 600, Reason.DEADLINE),
        (ANSWER, NOTHING_WAITS, 600, Reason.UPSTREAM_TIMEOUT),
        (ANSWER, FOR_WORKER, 600, Reason.DEADLINE),
        (ANSWER, Waits(in_windows=1), 60, Reason.DEADLINE),
    ],
)
def test_the_patience_is_with_who_has_to_speak(
    progress: Progress, waits: Waits, patience_s: int, reason: Reason
) -> None:
    assert after(patience_s - 1, progress, waits) is None
    assert after(patience_s, progress, waits) is reason


def test_a_request_that_waits_for_its_answer_has_another_deadline() -> None:
    assert after(100_000, ASKED) is None


@pytest.mark.parametrize(
    "moved",
    [
        BODY._replace(request_bytes=11),
        BODY._replace(response_bytes=1),
    ],
)
def test_any_byte_ends_the_silence(moved: Progress) -> None:
    silence = Silence(0)
    assert silence.look(BODY, NOTHING_WAITS, DEADLINES, 0) is None
    assert silence.look(moved, NOTHING_WAITS, DEADLINES, 60_000) is None
    assert silence.look(moved, NOTHING_WAITS, DEADLINES, 119_999) is None
    assert silence.look(moved, NOTHING_WAITS, DEADLINES, 120_000) is Reason.REQUEST_TIMEOUT


def test_what_is_taken_ends_the_silence_of_who_takes_it() -> None:
    silence = Silence(0)
    for taken in range(10):
        waits = Waits(for_worker=100 - taken, own=100 - taken)
        assert silence.look(ANSWER, waits, DEADLINES, taken * 599_000) is None


def test_the_time_of_who_was_held_up_begins_when_he_may_go_on() -> None:
    silence = Silence(0)
    others = Waits(for_server=1)  # of other streams, behind which this one has to wait
    assert silence.look(BODY, others, DEADLINES, 0) is None
    assert silence.look(BODY, others, DEADLINES, 500_000) is None
    assert silence.look(BODY, NOTHING_WAITS, DEADLINES, 559_999) is None
    assert silence.look(BODY, NOTHING_WAITS, DEADLINES, 560_000) is Reason.REQUEST_TIMEOUT


def test_a_sign_of_life_is_for_a_stream_both_ways_and_no_part_of_a_body() -> None:
    for progress, said in ((CALL, None), (TALK, None), (BODY, Reason.REQUEST_TIMEOUT)):
        silence = Silence(0)
        assert silence.look(progress, Waits(pings=0), DEADLINES, 0) is None
        assert silence.look(progress, Waits(pings=1), DEADLINES, 599_000) is said
        if said is None:
            assert silence.look(progress, Waits(pings=2), DEADLINES, 1_198_000) is None


def test_what_comes_behind_does_not_make_up_for_what_is_not_taken() -> None:
    """One side drips, the other takes nothing of it."""
    silence, look = Silence(0), 0
    for look in range(6):
        progress = BODY._replace(request_bytes=100 + look)
        waits = Waits(for_server=100 + look, in_windows=100 + look)
        assert silence.look(progress, waits, DEADLINES, look * 10_000) is None
    last = BODY._replace(request_bytes=200)
    waits = Waits(for_server=200, in_windows=200)
    assert silence.look(last, waits, DEADLINES, 60_000) is Reason.DEADLINE
