"""A fault is told by its type and its places, never by its text."""

import asyncio
import logging

import pytest

from palyra_fleet.logs.faults import MAX_PLACES, fault_of
from palyra_fleet.tasks import spawn

SECRET = "hunter2"


def raised(depth: int = 0) -> Exception:
    try:
        _fail(depth)
    except ValueError as error:
        return error
    raise AssertionError


def _fail(depth: int) -> None:
    if depth:
        _fail(depth - 1)
    raise ValueError(SECRET)


def test_a_fault_has_its_type_and_its_places() -> None:
    told = fault_of(raised())
    assert told.startswith(f"ValueError at {__file__}:")
    assert told.endswith(" _fail") and SECRET not in told


def test_one_that_was_never_raised_has_its_type_alone() -> None:
    assert fault_of(ValueError(SECRET)) == "ValueError"


def test_only_the_innermost_places_are_told() -> None:
    assert fault_of(raised(200)).count(" > ") == MAX_PLACES - 1


async def test_a_task_that_fails_tells_no_text_under_anybodys_formatter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken() -> None:
        raise ValueError(SECRET)

    task = spawn(broken(), "the broken one")
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0)
    (record,) = caplog.records
    shown = logging.Formatter().format(record)
    assert shown.startswith("task the broken one failed: ValueError at ")
    assert SECRET not in shown
