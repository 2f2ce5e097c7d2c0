"""Refused calls do not fill the log: so many lines a minute, and the number of the others."""

import asyncio
from urllib.parse import urlsplit

import pytest

from palyra_fleet.api import refusal_lines
from palyra_fleet.api.refusal_lines import (
    LINES_EACH,
    LINES_IN_ALL,
    MAX_REMEMBERED,
    WINDOW_S,
    LeftOut,
    RefusalLines,
)
from palyra_fleet.api.refusal_log import RefusalLog
from tests.fakes.log_lines import json_lines
from tests.fakes.raw_http import ask
from tests.fakes.real_fleet import real_fleet
from tests.fakes.until import until

BAD, OTHER = "api.token_refused", "api.not_found"


def test_the_first_of_a_reason_are_told_and_the_others_counted() -> None:
    lines = RefusalLines()
    assert [lines.note("192.0.2.1", BAD, 5.0) for _ in range(LINES_EACH)] == [True] * LINES_EACH
    assert not any(lines.note("192.0.2.1", BAD, 5.0) for _ in range(7))
    assert lines.over(5.0 + WINDOW_S - 0.01) == ()
    assert lines.over(5.0 + WINDOW_S) == (LeftOut("192.0.2.1", BAD, 7),)
    assert lines.over(5.0 + WINDOW_S) == ()
    assert lines.note("192.0.2.1", BAD, 5.0 + WINDOW_S)


@pytest.mark.parametrize(("address", "reason"), [("192.0.2.2", BAD), ("192.0.2.1", OTHER)])
def test_no_storm_hides_another_address_or_another_reason(address: str, reason: str) -> None:
    lines = RefusalLines()
    for _ in range(LINES_EACH + 1):
        lines.note("192.0.2.1", BAD, 5.0)
    assert lines.note(address, reason, 5.0)


def test_many_addresses_write_no_more_than_all_may_and_each_call_is_counted() -> None:
    lines, calls = RefusalLines(), 3 * MAX_REMEMBERED
    told = sum(lines.note(f"2001:db8::{number:x}", BAD, 5.0) for number in range(calls))
    assert told == LINES_IN_ALL
    assert len(lines._windows) == MAX_REMEMBERED + 1
    found = lines.over(5.0 + WINDOW_S)
    assert sum(one.calls for one in found) == calls - told
    assert found[-1] == LeftOut(None, None, calls - MAX_REMEMBERED)
    assert lines.note("2001:db8::1", BAD, 5.0 + WINDOW_S)


async def test_a_flood_of_refusals_is_a_bounded_number_of_lines_and_then_their_number() -> None:
    with json_lines(RefusalLog.__module__) as lines:
        async with real_fleet() as fleet:
            for _ in range(LINES_EACH + 5):
                await ask(fleet.server.admin_url, "GET", "/nothing")
            assert [line["event.action"] for line in lines] == ["call-refused"] * LINES_EACH
        *_, number = lines
    assert (number["event.action"], number["event.reason"]) == ("calls-refused", OTHER)
    assert number["source.ip"] == "127.0.0.1"
    assert number["message"] == f"5 more calls of 127.0.0.1 were refused: {OTHER}"
    assert "http.request.id" not in number
    assert len(lines) == LINES_EACH + 1


async def test_a_local_program_does_not_use_up_the_lines_of_others_from_many_addresses() -> None:
    """Each of its reasons is told as often as from one address: here one of them."""
    with json_lines(RefusalLog.__module__) as lines:
        async with real_fleet() as fleet:
            url = urlsplit(fleet.server.admin_url)
            for number in range(LINES_EACH + 5):
                source = (f"127.1.2.{number + 1}", 0)
                reader, writer = await asyncio.open_connection(
                    url.hostname, url.port, local_addr=source
                )
                writer.write(
                    b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                )
                assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
                writer.close()
                await writer.wait_closed()
    assert [line["source.ip"] for line in lines[:2]] == ["127.1.2.1", "127.1.2.2"]
    assert lines[-1]["message"] == f"5 more calls of 127.0.0.1 were refused: {OTHER}"
    assert len(lines) == LINES_EACH + 1


async def test_the_number_is_told_when_its_time_is_over_though_nobody_calls_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusal_lines, "LINES_EACH", 1)
    monkeypatch.setattr(refusal_lines, "WINDOW_S", 0.2)

    with json_lines(RefusalLog.__module__) as lines:
        async with real_fleet() as fleet:
            counted = 0
            while not counted:  # on a busy machine each call may have a window of its own
                told = len(lines)
                for _ in range(2):
                    await ask(fleet.server.admin_url, "GET", "/nothing")
                counted = told + 2 - len(lines)
            await until("it is told", lambda: lines[-1]["event.action"] == "calls-refused")
