"""Who works in a page by keyboard keeps their place in it while it is brought up to date."""

import sys

import pytest
from playwright.async_api import Page

from tests.e2e.console_browser import Console, chromium, signed_in, token_of
from tests.e2e.place import VIOLATE, Place

WHERE = """() => {
  const one = document.activeElement;
  return [one.outerHTML.slice(0, one.outerHTML.indexOf(">") + 1), one.selectionStart ?? null];
}"""


async def is_brought_up_to_date(place: Place, page: Page, by: int) -> None:
    """Something happens in the fleet, and the page was put in place anew."""
    await page.evaluate("document.querySelector('main h1').dataset.before = 'yes'")
    made = await place.fleet(
        *("principal", "create", f"somebody-{by}", "--role", "viewer", "--reason", "test")
    )
    assert made.code == 0, made.err
    await page.wait_for_selector("main h1:not([data-before])")


async def stays_in(place: Place, console: Console, selector: str, by: int) -> None:
    """Focus it, see the page brought up to date, and find the focus in the same place."""
    page = console.page
    await page.wait_for_selector("#live.good")
    await page.locator(selector).first.focus()
    before = await page.evaluate(WHERE)
    assert "<body" not in before[0], selector
    await is_brought_up_to_date(place, page, by)
    assert await page.evaluate(WHERE) == before, selector


@pytest.mark.timeout(300)
async def test_the_focus_stays_where_it_was(place: Place) -> None:
    running = await place.up()
    await place.run_to_its_end("api", sys.executable, "-c", VIOLATE)
    (worker,) = await place.workers()
    token = token_of(place)
    own = f"/workers/{worker.worker_id}"
    places = (
        ("", "#decisions-table > summary"),
        ("", "main a.tile >> nth=1"),
        ("/workers", "table a.id"),
        (own, ".actions button >> nth=1"),
        (own, "main [role=region]"),
        ("/policies", "#explain-method"),
        ("/approvals", "#new-grant summary"),
    )
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token)
        for by, (path, selector) in enumerate(places):
            await console.goto(path)
            await stays_in(place, console, selector, by)
        assert console.complaints == []


@pytest.mark.timeout(300)
async def test_what_somebody_writes_is_not_disturbed(place: Place) -> None:
    running = await place.up()
    token = token_of(place)
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token)
        page = console.page
        for by, (path, selector) in enumerate(
            (("/approvals", "#grant-run"), ("/audit", "#q"), ("/leases", "#q"))
        ):
            await console.goto(path)
            await page.wait_for_selector("#live.good")
            if path == "/approvals":
                await page.get_by_text("Approve a run").click()
            await page.locator(selector).press_sequentially("wrtten")
            for _ in range(4):
                await page.keyboard.press("ArrowLeft")
            await is_brought_up_to_date(place, page, by)
            await page.keyboard.type("i")
            assert await page.locator(selector).input_value() == "written", path
        assert console.complaints == []


@pytest.mark.timeout(300)
async def test_where_the_button_has_gone_the_focus_is_at_the_page(place: Place) -> None:
    running = await place.up()
    token = token_of(place)
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token)
        page = console.page
        await console.goto("/leases")
        await page.wait_for_selector("#live.good")
        puppet = await place.puppet("api")
        await page.get_by_role("button", name="Revoke").focus()
        await puppet.exit(0)
        await page.get_by_text("No lease lives.").wait_for()
        assert await page.evaluate("document.activeElement.id") == "main"
        assert console.complaints == []
