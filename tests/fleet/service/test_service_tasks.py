"""`spawn` keeps tasks alive and lets no failure go unsaid."""

import asyncio
import gc
import logging

import pytest

from palyra_fleet.tasks import spawn


async def _fail() -> None:
    raise LookupError("a value that somebody sent")


async def test_a_failure_is_logged_under_the_tasks_name_by_its_type_and_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        task = spawn(_fail(), "doomed")
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("task doomed failed: LookupError at ") and line.endswith(" _fail")
    assert "somebody" not in line


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
