"""The page of leases as a person meets it: a live run, found and ended from the keyboard."""

import sys

import pytest
from playwright.async_api import Locator

from tests.e2e.console_browser import PHONE, chromium, signed_in, token_of
from tests.e2e.place import Place
from tests.fakes.until import until

TALK = "import time, urllib.request; urllib.request.urlopen({url!r}).read(); time.sleep(600)"


@pytest.mark.timeout(300)
async def test_a_run_is_found_and_its_lease_is_ended_from_the_page(place: Place) -> None:
    running = await place.up()
    url = place.upstreams.url("api.example", "/open/x")
    token = token_of(place)
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token)
        page = console.page
        await console.goto("/leases")
        assert await page.get_by_text("No lease lives.").is_visible()

        talking = (sys.executable, "-c", TALK.format(url=url))
        run = await place.run("api", *talking, options=("--run-id", "run-to-end"))
        other = await place.puppet("git")
        row = page.locator("tr:has-text('run-to-end')")
        await row.locator(".chip.good:has-text('busy')").wait_for()
        assert "in " in await row.locator("time[data-ends]").inner_text()
        bytes_cell = row.locator("td[data-label=Bytes]")
        await until("its bytes are told", lambda: tells_bytes(bytes_cell))
        await page.locator("tbody tr").nth(1).wait_for()
        assert await page.locator("tbody tr").count() == 2
        await console.picture("leases")

        await page.fill("#q", "to-END")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**q=to-END")
        assert await page.locator("tbody tr").count() == 1
        await page.wait_for_selector("#live.good")
        button = row.get_by_role("button", name="Revoke")
        await button.focus()
        await page.keyboard.press("Enter")
        assert "run-to-end loses its network" in await page.locator("#ask-what").inner_text()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")  # without a reason nothing is done
        assert await page.locator("#ask[open]").count() == 1
        await page.fill("#ask-reason", "it runs away")
        await console.assert_accessible()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.get_by_text("No lease lives with that in it.").wait_for()
        await run.ended()

        await page.get_by_role("link", name="ended").click()
        await page.wait_for_url("**state=ended**")
        assert await page.locator("#q").input_value() == "to-END"
        assert await row.locator(".chip.warn:has-text('revoked')").is_visible()
        assert await row.get_by_role("button").count() == 0
        await console.assert_accessible()
        await console.picture("leases-ended")

        await page.set_viewport_size(PHONE)
        await page.get_by_role("link", name="all", exact=True).click()
        await page.wait_for_url("**state=all**")
        await console.assert_accessible()
        await console.assert_fits()
        await console.picture("leases-phone")
        assert console.complaints == []
        assert await other.exit(0) == 0
    (revoked,) = await place.events("worker.lease_revoked")
    assert (revoked.actor, revoked.detail["why"]) == ("operator", "it runs away")


async def tells_bytes(cell: Locator) -> bool:
    """Whether the cell says how much was received."""
    return "received" in await cell.inner_text()
