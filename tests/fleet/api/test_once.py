"""A change that is asked for twice is made once; and nobody calls more often than its rate."""

import asyncio

import pytest
from aiohttp import web

from palyra_fleet.api.call_rates import CallRates, Rate
from palyra_fleet.api.callers import Identity, SignedRequest, Who
from palyra_fleet.api.once import KEPT_MS, MAX_PER_CALLER, OnceOnly
from palyra_fleet.api.problems import ApiReason, ApiRefusal
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.tasks import spawn

ANNA, BERT = Identity(Who.OPERATOR, "anna"), Identity(Who.OPERATOR, "bert")
KEY = "k" * 20
REQUEST = SignedRequest("POST", "/v1/grants", b"{}")


class Work:
    """Counts how often it was done."""

    def __init__(self) -> None:
        self.done = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> web.StreamResponse:
        self.done += 1
        number = self.done
        await self.may_end.wait()
        return web.Response(status=201, body=str(number).encode(), content_type="text/plain")


def said(response: web.StreamResponse) -> tuple[int, object]:
    assert isinstance(response, web.Response)
    return response.status, response.body


async def test_the_same_again_gets_the_answer_of_the_first_time() -> None:
    once, work = OnceOnly(), Work()
    first = await once.answer(ANNA, KEY, REQUEST, work, 0)
    again = await once.answer(ANNA, KEY, REQUEST, work, KEPT_MS - 1)
    assert said(first) == said(again) == (201, b"1")
    assert said(await once.answer(BERT, KEY, REQUEST, work, 0)) == (201, b"2")
    assert said(await once.answer(ANNA, KEY, REQUEST, work, KEPT_MS)) == (201, b"3")


async def test_a_refusal_is_an_answer_and_the_same_may_be_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    once, work = OnceOnly(), Work()

    async def refused() -> web.StreamResponse:
        raise FleetRefusal(FleetReason.WORKER_QUARANTINED, "not now")

    for _ in range(2):
        with pytest.raises(FleetRefusal, match="not now"):
            await once.answer(ANNA, KEY, REQUEST, refused, 0)
    assert said(await once.answer(ANNA, KEY, REQUEST, work, 0)) == (201, b"1")
    assert caplog.records == []


async def test_many_at_once_are_one_change_which_is_finished_though_who_asked_goes_away() -> None:
    once, work = OnceOnly(), Work()
    work.may_end.clear()
    asked = [spawn(once.answer(ANNA, KEY, REQUEST, work, 0), "asked") for _ in range(8)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    work.may_end.set()
    answers = await asyncio.gather(*asked[1:])
    assert {said(answer) for answer in answers} == {(201, b"1")}
    assert work.done == 1


async def test_a_key_for_another_request_or_of_a_bent_form_is_refused() -> None:
    once, work = OnceOnly(), Work()
    await once.answer(ANNA, KEY, REQUEST, work, 0)
    for other in (
        SignedRequest("POST", "/v1/grants", b"{ }"),
        SignedRequest("POST", "/v1/leases", b"{}"),
    ):
        with pytest.raises(ApiRefusal) as caught:
            await once.answer(ANNA, KEY, other, work, 0)
        assert caught.value.reason is ApiReason.KEY_REUSED
    for bent in ("", "short", "k" * 65, "k" * 19 + "\n", "k" * 19 + " "):
        with pytest.raises(ApiRefusal):
            await once.answer(ANNA, bent, REQUEST, work, 0)
    assert work.done == 1


async def test_what_failed_is_tried_again_and_one_caller_fills_only_its_own_share() -> None:
    once, work = OnceOnly(), Work()

    async def fails() -> web.StreamResponse:
        raise ApiRefusal(ApiReason.BODY_INVALID)

    with pytest.raises(ApiRefusal):
        await once.answer(ANNA, KEY, REQUEST, fails, 0)
    await once.answer(ANNA, KEY, REQUEST, work, 0)
    await once.answer(BERT, KEY, REQUEST, work, 0)
    for number in range(MAX_PER_CALLER):
        await once.answer(ANNA, f"{number:020}", REQUEST, work, 0)
    assert len(once._entries) == MAX_PER_CALLER + 1
    before = work.done
    await once.answer(BERT, KEY, REQUEST, work, 0)
    assert work.done == before
    await once.answer(ANNA, KEY, REQUEST, work, 0)  # the oldest was given up
    assert work.done == before + 1


def test_a_caller_has_its_burst_and_its_rate_whatever_others_do_and_the_clock() -> None:
    rates, rate = CallRates(most=2), Rate(per_s=2, burst=3)
    assert [rates.take("a", rate, 1_000) for _ in range(4)] == [None, None, None, 1]
    assert rates.take("b", rate, 1_000) is None
    assert rates.take("a", rate, 1_499) is not None
    assert rates.take("a", rate, 1_500) is None
    assert rates.take("a", rate, 0) is not None, "a step back gives nothing"
    assert rates.take("a", rate, 1_501) is not None
    rates.take("c", rate, 1_501)
    assert len(rates._buckets) == 2
