"""Group commit: one sync for many, in order; after a failure nothing that rests on it is taken."""

import asyncio
from collections.abc import Sequence

import pytest

from palyra_fleet.store.group_commit import MAX_GROUP, GroupCommit
from palyra_fleet.store.protocol import StoreConflict, StoreFailed


class Disk:
    """Takes groups of numbers, when it is let."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.free = asyncio.Event()
        self.free.set()
        self.fails: Exception | None = None

    async def write(self, group: Sequence[int]) -> None:
        await self.free.wait()
        if self.fails is not None:
            raise self.fails
        self.groups.append(list(group))

    @property
    def written(self) -> list[int]:
        return [number for group in self.groups for number in group]


async def test_a_caller_alone_is_written_at_once() -> None:
    disk = Disk()
    group = GroupCommit(disk.write)
    for number in range(3):
        await group.submit(number)
    assert disk.groups == [[0], [1], [2]]


async def test_what_comes_while_another_is_written_shares_one_transaction_in_order() -> None:
    disk = Disk()
    disk.free.clear()
    group = GroupCommit(disk.write)
    first = group.submit(0)
    await asyncio.sleep(0)
    later = [group.submit(number) for number in range(1, 50)]
    assert not first.done()
    disk.free.set()
    await asyncio.gather(first, *later)
    assert disk.groups == [[0], list(range(1, 50))]


async def test_a_group_has_a_largest_size() -> None:
    disk = Disk()
    group = GroupCommit(disk.write)
    await asyncio.gather(*(group.submit(number) for number in range(MAX_GROUP + 3)))
    assert [len(written) for written in disk.groups] == [MAX_GROUP, 3]
    assert disk.written == list(range(MAX_GROUP + 3))


@pytest.mark.parametrize(
    "error", [StoreConflict("no"), StoreFailed("full", ambiguous=False), StoreFailed("?", True)]
)
async def test_after_a_failure_everything_that_rests_on_it_fails(
    error: StoreConflict | StoreFailed,
) -> None:
    disk = Disk()
    disk.free.clear()
    disk.fails = error
    group = GroupCommit(disk.write)
    first = group.submit(0)
    await asyncio.sleep(0)
    second = group.submit(1)
    disk.free.set()
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert outcomes[0] is error
    assert isinstance(outcomes[1], StoreFailed)
    disk.fails = None
    with pytest.raises(StoreFailed):
        await group.submit(2)
    group.resume()
    await group.submit(3)
    assert disk.written == [3]


async def test_a_fault_of_ours_in_the_writer_leaves_nobody_waiting() -> None:
    disk = Disk()
    disk.fails = ZeroDivisionError()
    group = GroupCommit(disk.write)
    with pytest.raises(StoreFailed) as caught:
        await group.submit(0)
    assert caught.value.ambiguous
    await group.flush()


async def test_a_flush_waits_for_what_was_submitted_and_not_for_more_to_gather() -> None:
    disk = Disk()
    group = GroupCommit(disk.write)
    await asyncio.gather(*(group.submit(number) for number in range(4)))
    last = group.submit(9)
    await group.flush()
    assert last.done()
    assert disk.written[-1] == 9
