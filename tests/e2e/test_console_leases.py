"""The page of leases as a person meets it: a live run, found and ended by keyboard, in every look
on one installation."""

import sys

import pytest
from playwright.async_api import Locator

from tests.e2e.console_browser import LOOKS, Console, chromium, in_every_look, token_of
from tests.e2e.place import Place
from tests.fakes.until import until

TALK = "import time, urllib.request; urllib.request.urlopen({url!r}).read(); time.sleep(600)"


@pytest.mark.timeout(600)
async def test_a_run_is_found_and_its_lease_is_ended_from_the_page(place: Place) -> None:
    running = await place.up()
    async with chromium() as browser:
        other = None
        async for console in in_every_look(browser, running.admin_url, token_of(place)):
            if other is None:
                await console.goto("/leases")
                assert await console.page.get_by_text("No lease lives.").is_visible()
                other = await place.puppet("git")
            await finds_and_ends(place, console, f"run-{console.look.name}")
        assert other is not None
        assert await other.exit(0) == 0
    revoked = await place.events("worker.lease_revoked")
    assert [(one.actor, one.detail["why"]) for one in revoked] == [
        ("operator", f"run-{look.name} runs away") for look in LOOKS
    ]


async def finds_and_ends(place: Place, console: Console, run_id: str) -> None:
    page, url = console.page, place.upstreams.url("api.example", "/open/x")
    await console.goto("/leases")
    talking = (sys.executable, "-c", TALK.format(url=url))
    run = await place.run("api", *talking, options=("--run-id", run_id))
    row = page.locator(f"tr:has-text('{run_id}')")
    await row.locator(".chip.good:has-text('busy')").wait_for()
    assert "in " in await row.locator("time[data-ends]").inner_text()
    bytes_cell = row.locator("td[data-label=Bytes]")
    await until("its bytes are told", lambda: tells_bytes(bytes_cell))
    await page.locator("tbody tr").nth(1).wait_for()
    assert await page.locator("tbody tr").count() == 2
    await console.state("leases")

    wanted = run_id.removeprefix("run-").upper()
    await console.tab_to(page.locator("#q"))
    await page.keyboard.type(wanted)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**q={wanted}")
    assert await page.locator("tbody tr").count() == 1
    await page.wait_for_selector("#live.good")
    await console.tab_to(row.get_by_role("button", name="Revoke"))
    await page.keyboard.press("Enter")
    assert f"{run_id} loses its network" in await page.locator("#ask-what").inner_text()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")  # without a reason nothing is done
    assert await page.locator("#ask[open]").count() == 1
    await page.fill("#ask-reason", f"{run_id} runs away")
    await console.state("lease-revoke")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.get_by_text("No lease lives with that in it.").wait_for()
    await run.ended()

    await console.tab_to(page.get_by_role("link", name="ended"))
    await page.keyboard.press("Enter")
    await page.wait_for_url("**state=ended**")
    assert await page.locator("#q").input_value() == wanted
    assert await row.locator(".chip.warn:has-text('revoked')").is_visible()
    assert await row.get_by_role("button").count() == 0
    await console.state("leases-ended")
    await page.get_by_role("link", name="all", exact=True).click()
    await page.wait_for_url("**state=all**")
    await console.state("leases-all")


async def tells_bytes(cell: Locator) -> bool:
    """Whether the cell says how much was received."""
    return "received" in await cell.inner_text()
