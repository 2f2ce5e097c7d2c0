"""The view's order: whatever happens at the same moment, no message comes after a newer one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import pytest

from palyra_fleet import view_hub
from palyra_fleet.tasks import spawn
from palyra_fleet.view_hub import ViewHub
from palyra_fleet.wire.models import ViewMessage
from tests.fakes.ledger_world import LedgerWorld, ulid


async def test_changes_at_the_very_moment_of_a_tick_come_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(view_hub, "TICK_EVERY_S", 0.01)
    world, hub, loop = LedgerWorld(), ViewHub(1, 0), asyncio.get_running_loop()
    for number in (101, 102):
        world.register(ulid(number))
        world.do(world.manager.quarantine(ulid(number), "alice", "why", 3_000))

    def two_changes() -> None:
        for decision in world.decisions:
            hub.take(decision.records, 0)

    stream = cast(AsyncGenerator[ViewMessage], hub.stream())
    async with aclosing(stream):
        heard = [await anext(stream)]
        waiting = spawn(anext(stream), "next message")
        await asyncio.sleep(0)
        loop.call_later(0.011, two_changes)
        late_s = loop.time() + 0.03
        while loop.time() < late_s:
            pass  # the loop is busy: the tick and the changes are both due when it looks again
        heard.append(await waiting)
        heard += [await anext(stream) for _ in range(2)]
    assert [message.kind for message in heard] == ["snapshot", "block", "block", "tick"]
    assert [message.seq for message in heard] == [0, 1, 2, 2]
