"""What a session keeps of its offers: the newest, until it is answered."""

import asyncio

from ulid import ULID

from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import ArtifactTransportModel
from palyra_fleet.wire.placement_models import OfferModel
from palyra_fleet.worker.offer_box import OfferBox


def offer(run_id: str) -> OfferModel:
    return OfferModel(
        offer_id=str(ULID()),
        run_id=run_id,
        grant_id=str(ULID()),
        worker_id=str(ULID()),
        required_capabilities=(),
        ttl_ms=60_000,
        read_only=False,
        artifact_transport=ArtifactTransportModel(),
        offered_at_unix_ms=1,
        expires_at_unix_ms=10_001,
    )


async def test_the_newest_offer_is_the_one_to_answer_and_only_once() -> None:
    box = OfferBox()
    box.put(offer("older"))
    box.put(offer("newer"))
    assert (await box.next()).run_id == "newer"
    assert box.take() is None


async def test_who_waits_gets_the_offer_when_it_comes_and_waits_no_longer() -> None:
    box = OfferBox()
    box.waits = True
    waiting = spawn(box.next(), "waits")
    await asyncio.sleep(0)
    assert not waiting.done()
    box.put(offer("run-1"))
    assert (await waiting).run_id == "run-1"
    assert not box.waits


async def test_an_offer_that_was_given_back_is_not_handed_out() -> None:
    box = OfferBox()
    box.put(offer("run-1"))
    assert box.take() is not None
    waiting = spawn(box.next(), "waits")
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
