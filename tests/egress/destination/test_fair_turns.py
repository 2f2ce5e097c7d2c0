"""Nobody takes more turns than its share, and nobody's queue stands before another's."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.destination.fair_turns import FairTurns, TooManyWaiting


async def started(turns: FairTurns, asker: str, order: list[str]) -> asyncio.Task[None]:
    """Somebody who has asked, and perhaps waits."""

    async def wait() -> None:
        await turns.take(asker)
        order.append(asker)

    task = asyncio.get_running_loop().create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_one_asker_fills_its_share_and_no_more() -> None:
    turns, order = FairTurns(4, 2, 10), []
    tasks = [await started(turns, "greedy", order) for _ in range(5)]
    await started(turns, "honest", order)
    await asyncio.sleep(0)
    assert order == ["greedy", "greedy", "honest"]
    for _ in range(3):
        turns.give_back("greedy")
        await asyncio.sleep(0)
    assert order.count("greedy") == 5
    await asyncio.gather(*tasks)


async def test_a_free_turn_goes_to_each_in_turn() -> None:
    turns, order = FairTurns(1, 1, 10), []
    await turns.take("first")
    tasks = [await started(turns, asker, order) for asker in ("a", "a", "a", "b", "b")]
    holder = "first"
    for _ in range(5):
        turns.give_back(holder)
        await asyncio.sleep(0)
        holder = order[-1]
    assert order == ["a", "b", "a", "b", "a"]
    await asyncio.gather(*tasks)


async def test_a_full_queue_refuses_its_asker_only() -> None:
    turns, order = FairTurns(1, 1, 2), []
    await turns.take("greedy")
    tasks = [await started(turns, "greedy", order) for _ in range(2)]
    with pytest.raises(TooManyWaiting):
        await turns.take("greedy")
    tasks.append(await started(turns, "honest", order))
    turns.give_back("greedy")
    for holder in ("greedy", "honest"):
        await asyncio.sleep(0)
        turns.give_back(holder)
    await asyncio.gather(*tasks)
    assert order == ["greedy", "honest", "greedy"]


async def test_who_gives_up_waiting_takes_no_turn() -> None:
    turns, order = FairTurns(1, 1, 10), []
    await turns.take("holder")
    impatient = await started(turns, "impatient", order)
    patient = await started(turns, "patient", order)
    impatient.cancel()
    await asyncio.sleep(0)
    turns.give_back("holder")
    await patient
    assert order == ["patient"]
    turns.give_back("patient")
    assert turns.running == 0


async def test_a_turn_that_comes_in_the_moment_of_giving_up_is_given_back() -> None:
    turns, order = FairTurns(1, 1, 10), []
    await turns.take("holder")
    late = await started(turns, "late", order)
    turns.give_back("holder")
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert turns.running == 0
    await turns.take("next")
    assert turns.running == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_the_share_holds_and_nothing_is_lost_whatever_happens(steps) -> None:
    async def play() -> None:
        turns, running, order = FairTurns(3, 2, 100), [], []
        tasks: list[asyncio.Task[None]] = []
        for asker, ends in steps:
            if ends and running:
                turns.give_back(running.pop(0))
            else:
                tasks.append(await started(turns, asker, order))
            for _ in range(3):
                await asyncio.sleep(0)
            running += order
            order.clear()
            assert turns.running == len(running) <= 3
            assert all(running.count(one) <= 2 for one in "abc")
        while running:
            turns.give_back(running.pop(0))
            for _ in range(3):
                await asyncio.sleep(0)
            running += order
            order.clear()
        assert turns.running == 0
        await asyncio.gather(*tasks)

    asyncio.run(play())
