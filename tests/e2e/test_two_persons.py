"""Two persons release a worker in the console: one asks, another approves, each in every look."""

import sys
from dataclasses import dataclass

import pytest
from playwright.async_api import Browser, expect

from palyra_fleet.wire.principal_models import Role
from tests.e2e.console_browser import (
    DESK_DARK,
    DESK_LIGHT,
    PHONE_DARK,
    PHONE_LIGHT,
    Console,
    Look,
    chromium,
    signed_in,
    token_for,
)
from tests.e2e.place import VIOLATE, Place

WORKER = "01ARZ3NDEKTSV4RRFFQ69G5FA"
WAITING = "A release that waits for another person"
IN_TURN = (
    (DESK_LIGHT, PHONE_DARK),
    (PHONE_DARK, DESK_LIGHT),
    (DESK_DARK, PHONE_LIGHT),
    (PHONE_LIGHT, DESK_DARK),
)
"""Who asks, who approves."""


@dataclass(frozen=True, slots=True)
class Persons:
    """Two who are signed in beside each other, with the tokens of an operator and an approver."""

    browser: Browser
    url: str
    operator: str
    approver: str

    async def asker(self, look: Look) -> Console:
        return await signed_in(self.browser, self.url, self.operator, look)

    async def second(self, look: Look) -> Console:
        return await signed_in(self.browser, self.url, self.approver, look)


@pytest.mark.timeout(600)
async def test_one_asks_and_another_approves_by_keyboard(place: Place) -> None:
    """On one installation, a worker of its own in each turn."""
    running = await place.up("--two-person-release")
    tokens = [await token_for(place, role) for role in (Role.OPERATOR, Role.APPROVER)]
    async with chromium() as browser:
        persons = Persons(browser, running.admin_url, *tokens)
        for number, (asks, approves) in enumerate(IN_TURN):
            worker_id = f"{WORKER}{number}"
            for program in (VIOLATE, "never started, but attested with a new key"):
                options = ("--worker-id", worker_id)
                await place.run_to_its_end("api", sys.executable, "-c", program, options=options)
            await is_released(persons, worker_id, asks, approves)
    approved = await place.events("worker.release_approved")
    assert [(one.worker_id, one.actor, one.detail["asked_by"]) for one in approved] == [
        (f"{WORKER}{number}", "a-approver", "a-operator") for number in range(len(IN_TURN))
    ]


async def is_released(persons: Persons, worker_id: str, asks: Look, approves: Look) -> None:
    asker = await persons.asker(asks)
    await asker.goto(f"/workers/{worker_id}")
    first = asker.page
    await first.wait_for_selector("#live.good")
    await expect(first.get_by_role("button", name="Release", exact=True)).to_have_count(0)
    await expect(first.locator(".cause")).to_contain_text("one asks, another approves")
    await asker.act_by_keyboard("Ask for release", "the tool is told not to look")
    await expect(first.get_by_role("heading", name=WAITING)).to_be_visible()
    await expect(first.get_by_role("button", name="Approve release")).to_be_disabled()
    await expect(first.locator("main")).to_contain_text("You asked for it")
    await asker.state("release-asked")

    approver = await persons.second(approves)
    second = approver.page
    region = second.get_by_role("region", name="Releases that wait")
    await expect(region).to_be_visible()
    await approver.state("release-waits")
    await region.get_by_role("link").press("Enter")
    await expect(second.get_by_role("heading", name=WAITING)).to_be_visible()
    await second.wait_for_selector("#live.good")
    await approver.state("release-to-approve")
    await approver.act_by_keyboard("Approve release", "seen")
    for page in (second, first):  # the other's page is up to date by itself
        await expect(page.get_by_role("heading", name=WAITING)).to_have_count(0)
        await expect(page.locator("h1")).not_to_contain_text("quarantined")
    await approver.state("release-approved")
    assert asker.complaints == approver.complaints == []
    for page in (first, second):
        await page.context.close()
