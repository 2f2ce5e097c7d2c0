"""Two persons release a worker in the console: one asks at a desk, another approves on a phone."""

import sys

import pytest
from playwright.async_api import expect

from palyra_fleet.wire.principal_models import Role
from tests.e2e.console_browser import PHONE_DARK, chromium, signed_in, token_for
from tests.e2e.place import VIOLATE, Place

WORKER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
WAITING = "A release that waits for another person"
expect.set_options(timeout=60_000)  # how long a loaded machine may take


@pytest.mark.timeout(300)
async def test_one_asks_and_another_approves_by_keyboard_on_a_phone(place: Place) -> None:
    running = await place.up("--two-person-release")
    for program in (VIOLATE, "never started, but attested with a new key"):
        options = ("--worker-id", WORKER)
        await place.run_to_its_end("api", sys.executable, "-c", program, options=options)
    url, path = running.admin_url, f"/workers/{WORKER}"
    tokens = [await token_for(place, role) for role in (Role.OPERATOR, Role.APPROVER)]
    async with chromium() as browser:
        asker = await signed_in(browser, url, tokens[0])
        await asker.goto(path)
        desk = asker.page
        await expect(desk.get_by_role("button", name="Release", exact=True)).to_have_count(0)
        await expect(desk.locator(".cause")).to_contain_text("one asks, another approves")
        await asker.act("Ask for release", "the tool is told not to look")
        await expect(desk.get_by_role("heading", name=WAITING)).to_be_visible()
        await expect(desk.get_by_role("button", name="Approve release")).to_be_disabled()
        await expect(desk.locator("main")).to_contain_text("You asked for it")
        await asker.assert_accessible()
        await asker.picture("release-asked")

        approver = await signed_in(browser, url, tokens[1], PHONE_DARK)
        phone = approver.page
        await expect(phone.get_by_role("heading", name="Releases that wait")).to_be_visible()
        await approver.assert_fits()
        await phone.get_by_role("region", name="Releases that wait").get_by_role("link").click()
        await expect(phone.get_by_role("heading", name=WAITING)).to_be_visible()
        await approver.assert_accessible()
        await approver.assert_fits()
        await approver.picture("release-to-approve")
        await phone.get_by_role("button", name="Approve release").press("Enter")
        await expect(phone.locator("#ask-reason")).to_be_focused()
        await phone.keyboard.type("seen")
        await phone.keyboard.press("Tab")
        await phone.keyboard.press("Enter")
        for page in (phone, desk):  # the other's page is up to date by itself
            await expect(page.get_by_role("heading", name=WAITING)).to_have_count(0)
            await expect(page.locator("h1")).not_to_contain_text("quarantined")
        assert asker.complaints == approver.complaints == []
    (approved,) = await place.events("worker.release_approved")
    assert (approved.actor, approved.detail["asked_by"]) == ("a-approver", "a-operator")
