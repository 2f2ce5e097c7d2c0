"""Background tasks: a failure is logged, unless whoever awaits the task tells of it."""

import asyncio

import pytest

from palyra_fleet.tasks import spawn


async def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "logged"), [(ConnectionError("gone"), False), (ValueError("odd"), True)]
)
async def test_a_failure_is_logged_unless_its_awaiter_tells_of_it(
    caplog: pytest.LogCaptureFixture, error: Exception, logged: bool
) -> None:
    task = spawn(_fail(error), "some work", told=(ConnectionError,))
    await asyncio.wait({task})
    with pytest.raises(type(error)):
        await task
    assert ("task some work failed" in caplog.text) is logged
