"""What an operator does to one worker from its page: each button pressed by keyboard, its effect
seen in the page as it is, in the worker and in the event log. One installation for all looks, with
a worker of its own for each."""

import re
import signal
import sqlite3
import sys
from contextlib import closing
from http import HTTPStatus
from typing import Final

import pytest
from playwright.async_api import expect

from palyra_fleet.wire.models import EventView, WorkerView
from tests.e2e.console_browser import (
    DESK_LIGHT,
    PHONE_DARK,
    Console,
    chromium,
    in_every_look,
    signed_in,
    token_of,
)
from tests.e2e.place import Place

DRAINING: Final = re.compile("draining: a lease that it still holds ends in [67] min")
BROKEN: Final = "event 3 does not follow the one before or was changed"


async def events_of(place: Place, worker_id: str, reason: str) -> list[EventView]:
    """A worker's events with this reason, oldest first."""
    return [one for one in await place.events(reason) if one.worker_id == worker_id]


async def as_it_is(place: Place, worker_id: str) -> WorkerView:
    (worker,) = [one for one in await place.workers() if one.worker_id == worker_id]
    return worker


async def opened(place: Place, console: Console, worker_id: str) -> None:
    """The page of the worker, marked so that a page that was loaded anew is noticed."""
    await console.goto(f"/workers/{worker_id}")
    await console.page.wait_for_selector("#live.good")
    await console.page.evaluate("window.same = true")


@pytest.mark.timeout(600)
async def test_a_worker_is_cordoned_drained_and_proved_again_by_keyboard(place: Place) -> None:
    running = await place.up()
    async with chromium() as browser:
        async for console in in_every_look(browser, running.admin_url, token_of(place)):
            puppet = await place.puppet("api")
            (busy,) = [one for one in await place.workers() if one.lease_id is not None]
            await opened(place, console, busy.worker_id)
            await takes_no_new_lease(place, console, busy.worker_id)
            await shows_what_is_demanded(place, console, busy.worker_id)
            assert await console.page.evaluate("window.same")
            assert await puppet.exit(0) == 0
            await says_that_it_was_evicted(console)


async def says_that_it_was_evicted(console: Console) -> None:
    """With its program a worker leaves; its page, which was open all the time, says so by itself,
    and leads on. The browser complains of the answer that said it, and of nothing else."""
    page = console.page
    told = page.get_by_role("alert")
    await expect(told).to_contain_text("This worker was evicted")
    await expect(page.locator(".events")).to_contain_text("evicted by operator")
    await expect(page.locator("#main button")).to_have_count(0)
    assert await page.evaluate("window.same")
    await console.state("worker-evicted")
    await console.tab_to(told.get_by_role("link"))
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/console/workers")
    await expect(page.get_by_role("heading", name="Workers", exact=True)).to_be_visible()
    assert set(console.complaints) == {complaint(404)}
    console.complaints.clear()


async def takes_no_new_lease(place: Place, console: Console, worker_id: str) -> None:
    """Cordon and drain: it keeps its lease; uncordon ends both."""
    page = console.page
    eligibility = page.locator("dt:text-is('Eligibility') + dd")
    await console.act_by_keyboard("Cordon", "its disk is full")
    await expect(eligibility).to_have_text("cordoned")
    await expect(page.locator(".events")).to_contain_text("its disk is full")
    await expect(page.get_by_role("button", name="Cordon", exact=True)).to_have_count(0)
    await console.state("worker-cordoned")
    await console.act_by_keyboard("Uncordon", "there is room")
    await expect(eligibility).to_have_text("eligible")

    await console.tab_to(page.get_by_role("button", name="Drain", exact=True))
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#ask-reason:focus")
    await page.keyboard.type("the machine is replaced")
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("How long it may keep")).to_be_focused()
    await expect(page.get_by_label("How long it may keep")).to_have_value("15")
    await console.state("worker-drain-asked")
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type("7")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(eligibility).to_have_text(DRAINING)
    await expect(page.get_by_role("button", name="Drain", exact=True)).to_have_count(0)
    await console.state("worker-draining")
    worker = await as_it_is(place, worker_id)
    assert (worker.state, worker.lease_id is None) == ("draining", False)
    (drained,) = await events_of(place, worker_id, "worker.drained_by_operator")
    assert drained.detail["why"] == "the machine is replaced"
    assert drained.detail["drain_deadline_unix_ms"] == drained.at_unix_ms + 7 * 60_000
    assert worker.drain_deadline_unix_ms == drained.at_unix_ms + 7 * 60_000

    await console.act_by_keyboard("Uncordon", "it stays after all")
    await expect(eligibility).to_have_text("eligible")
    freed = await events_of(place, worker_id, "worker.uncordoned_by_operator")
    assert [one.detail["why"] for one in freed] == ["there is room", "it stays after all"]


async def shows_what_is_demanded(place: Place, console: Console, worker_id: str) -> None:
    """New evidence, then a new key: the worker obeys, and the page says so by itself."""
    page = console.page
    happened = page.locator(".events")
    key = page.locator("dt:text-is('Key') + dd .id")
    before = await key.get_attribute("title")
    for button, why in (("Demand new evidence", "patched"), ("Demand a new key", "it was seen")):
        await console.act_by_keyboard(button, why)
        await expect(happened).to_contain_text(why)
    await expect(key).not_to_have_attribute("title", before or "")
    await expect(page.get_by_role("heading", name="demanded")).to_have_count(0)
    worker = await as_it_is(place, worker_id)
    assert (worker.demanded, worker.key_sha256) == (None, await key.get_attribute("title"))
    demanded = await events_of(place, worker_id, "worker.reattestation_demanded")
    assert [one.detail["why"] for one in demanded] == ["patched", "it was seen"]
    shown = await events_of(place, worker_id, "worker.reattested")
    assert shown[-1].detail["retired_key_sha256"] == before
    assert worker.lease_id is not None, "its run goes on"


@pytest.mark.timeout(600)
async def test_labels_are_changed_on_the_page_and_a_demand_stays_until_it_is_met(
    place: Place,
) -> None:
    """Of a worker that was killed: what is demanded of it stays to be seen."""
    running = await place.up()
    async with chromium() as browser:
        async for console in in_every_look(browser, running.admin_url, token_of(place)):
            known = {one.worker_id for one in await place.workers()}
            (await place.puppet("api")).program.signal(signal.SIGKILL)
            (worker_id,) = {one.worker_id for one in await place.workers()} - known
            await opened(place, console, worker_id)
            await changes_labels(place, console, worker_id)
            await console.act_by_keyboard("Demand a new key", "it was copied")
            heading = console.page.get_by_role("heading", name="A new key and new evidence")
            await expect(heading).to_be_visible()
            await console.state("worker-demanded")
            assert await console.page.evaluate("window.same")
            await is_found_by_the_demand(console, worker_id)


async def is_found_by_the_demand(console: Console, worker_id: str) -> None:
    """The list narrowed by it, and by its opposite."""
    page = console.page
    own = page.locator(f"tbody tr:has(a[href$='{worker_id}'])")
    await console.goto("/workers?demanded=true")
    await expect(own).to_contain_text("new evidence demanded")
    await expect(page.get_by_label("of whom new evidence")).to_have_value("true")
    await console.state("workers-demanded")
    await page.get_by_label("of whom new evidence").select_option("is not demanded")
    await page.get_by_role("button", name="Show").click()
    await page.wait_for_url("**demanded=false**")
    await expect(own).to_have_count(0)


async def changes_labels(place: Place, console: Console, worker_id: str) -> None:
    """Given, changed and taken in the form; only what was changed there is changed."""
    page = console.page
    text, why = page.get_by_label("Labels, one a line"), page.get_by_label("Why (goes").first
    chips = page.locator("dt:text-is('Labels') + dd a")

    async def labels() -> dict[str, str]:
        return dict((await as_it_is(place, worker_id)).labels)

    await console.tab_to(page.get_by_text("Change its labels"))
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(text).to_be_focused()
    await page.keyboard.type("zone=a\nrack\n-wrong")
    await page.keyboard.press("Tab")
    await page.keyboard.type("it was moved")
    await page.keyboard.press("Enter")
    wrong = page.locator("#labels-wrong")
    await expect(wrong).to_have_text('Line 3: expected KEY or KEY=VALUE, not "-wrong".')
    await expect(text).to_be_focused()
    await console.state("labels-wrong")
    # what somebody else gives meanwhile comes to the page, and what is written here stays
    given = await place.fleet("worker", "label", worker_id, "owner=ops", "--reason", "ours")
    assert given.code == 0, given.err
    await expect(chips).to_have_text(["owner=ops"])
    await expect(text).to_have_value("zone=a\nrack\n-wrong")
    await text.press("ControlOrMeta+End")
    for _ in "-wrong":
        await page.keyboard.press("Backspace")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(chips).to_have_text(["owner=ops", "rack", "zone=a"])
    assert await labels() == {"owner": "ops", "rack": "", "zone": "a"}
    await expect(page.get_by_text("Change its labels")).to_be_focused()
    await console.state("worker-labelled")

    await page.keyboard.press("Enter")
    await expect(text).to_have_value("owner=ops\nrack\nzone=a\n")
    await text.fill("owner=ops\nzone=b\n")
    await why.fill("no rack any more")
    await console.state("labels-edited")
    await page.keyboard.press("Enter")
    await expect(chips).to_have_text(["owner=ops", "zone=b"])
    assert await labels() == {"owner": "ops", "zone": "b"}
    changed = await events_of(place, worker_id, "worker.labelled_by_operator")
    assert [(one.detail["why"], one.detail["given"], one.detail["taken"]) for one in changed] == [
        ("ours", "owner=ops", None),
        ("it was moved", "rack=,zone=a", None),
        ("no rack any more", "zone=b", "rack"),
    ]


@pytest.mark.timeout(300)
async def test_the_whole_chain_is_verified_from_the_page(place: Place) -> None:
    running = await place.up()
    await place.run_to_its_end("api", sys.executable, "-c", "")
    async with chromium() as browser:
        async for console in in_every_look(browser, running.admin_url, token_of(place)):
            page = console.page
            await console.goto("/audit")
            await page.wait_for_selector("#live.good")
            await console.tab_to(page.get_by_role("button", name="Verify the whole chain"))
            await page.keyboard.press("Enter")
            verified = page.locator("#verified.chip.good")
            await expect(verified).to_contain_text("entries, whole")
            await console.state("audit-verified")
            done = await place.fleet("event", "verify")
            entries = int((await verified.inner_text()).removesuffix(" entries, whole"))
            assert 0 < entries <= int(done.out.removesuffix(" entries, whole\n"))
        change_an_event(place)
        for look in (DESK_LIGHT, PHONE_DARK):
            console = await signed_in(browser, running.admin_url, token_of(place), look)
            await console.goto("/audit")
            await console.tab_to(console.page.get_by_role("button", name="Verify the whole chain"))
            await console.page.keyboard.press("Enter")
            broken = console.page.locator("#verified.wrong")
            await expect(broken).to_have_text(BROKEN)
            await console.state("audit-broken")
            assert console.complaints == [complaint(500)]
            await console.page.context.close()


def change_an_event(place: Place) -> None:
    """Behind the fleet's back, as who can write its file would: another name for who did it. A
    fleet that starts looks at its newest events and would refuse these; older ones, and those that
    are changed while it runs, are found by this walk alone."""
    with closing(sqlite3.connect(place.home / "fleet" / "fleet.sqlite3")) as database, database:
        database.execute("DROP TRIGGER events_are_final")
        database.execute("UPDATE events SET actor = 'nobody' WHERE seq = 3")


def complaint(status: int) -> str:
    """What Chromium says of such an answer."""
    phrase = HTTPStatus(status).phrase
    return f"Failed to load resource: the server responded with a status of {status} ({phrase})"
