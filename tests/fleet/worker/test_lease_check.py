"""Asking the proxy whether it knows the lease: until it does, and not for ever."""

import pytest

from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.worker.lease_check import LeaseCheck, LeaseNotKnown, wait_until_known
from tests.fakes.manual_time import ManualTime
from tests.fakes.receipt_proxy import receipt_proxy

LEASE, SECRET = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "s" * 43


async def check(statuses: list[int], within_ms: int = 5_000) -> tuple[LeaseCheck, list[str], float]:
    """What came of it, the credentials the proxy saw, and the played time it took."""
    time = ManualTime()
    async with receipt_proxy(SigningKey.generate()) as proxy:
        proxy.lease_statuses = statuses
        asking = spawn(
            wait_until_known(proxy.address, LEASE, SECRET, time, within_ms=within_ms), "ask"
        )
        await time.play(60.0, 1, asking)
        return await asking, proxy.lease_credentials, time.now_s()


async def test_a_proxy_that_knows_the_lease_is_asked_once_with_its_credentials() -> None:
    said, credentials, took_s = await check([204])
    assert (said, credentials, took_s) == (LeaseCheck.KNOWN, [f"{LEASE}:{SECRET}"], 0.0)


async def test_a_proxy_that_hears_of_the_lease_later_is_waited_for() -> None:
    said, credentials, took_s = await check([403, 503, 407, 204])
    assert (said, len(credentials)) == (LeaseCheck.KNOWN, 4)
    assert 0 < took_s < 1


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_proxy_that_does_not_know_the_question_is_not_waited_for(status: int) -> None:
    assert (await check([status]))[0] is LeaseCheck.CANNOT_SAY


@pytest.mark.parametrize("status", [200, 302, 403, 407, 500, 503])
async def test_the_wait_for_any_other_answer_is_bounded(status: int) -> None:
    with pytest.raises(LeaseNotKnown, match=rf"within 5 s \(it said {status}\)") as refused:
        await check([status])
    assert SECRET not in str(refused.value)


async def test_a_proxy_that_is_not_there_is_waited_for_and_then_named() -> None:
    time = ManualTime()
    asking = spawn(wait_until_known("127.0.0.1:9", LEASE, SECRET, time, within_ms=1_000), "ask")
    await time.play(60.0, 1, asking)
    with pytest.raises(LeaseNotKnown, match=r"it said ClientProxyConnectionError"):
        await asking
