"""`spawn` keeps tasks alive and lets no failure go unsaid."""

import asyncio
import gc
import logging

import pytest

from palyra_fleet.tasks import spawn


async def _fail() -> None:
    raise LookupError("a detail that may be logged")


async def test_a_failure_is_logged_under_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        task = spawn(_fail(), "doomed")
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["task doomed failed: LookupError"]


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = spawn(asyncio.Event().wait(), "waiting")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert caplog.records == []


async def test_a_task_nobody_holds_is_not_lost() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        done.set()

    spawn(work(), "held by nobody else")
    gc.collect()
    await done.wait()
