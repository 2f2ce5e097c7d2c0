"""The console as a person meets it: a real browser, real programs, pictures in out/console/."""

import sys

import pytest

from palyra_fleet.wire.principal_models import Role
from tests.e2e.console_browser import (
    IN_EVERY_LOOK,
    LOOKS,
    Console,
    Look,
    chromium,
    in_every_look,
    signed_in,
    token_for,
    token_of,
)
from tests.e2e.place import METADATA_URL, VIOLATE, Place

PAGES = {
    "": "overview",
    "/workers": "workers",
    "/workers?waits=false": "workers-narrowed",
    "/leases?state=all": "leases",
    "/violations": "violations",
    "/approvals": "approvals",
    "/nodes": "no-nodes",
    "/policies": "policies",
    "/audit": "audit",
}


@pytest.mark.timeout(300)
@IN_EVERY_LOOK
async def test_every_page_is_readable_whatever_the_screen(place: Place, look: Look) -> None:
    running = await place.up()
    await place.run_to_its_end("api", sys.executable, "-c", VIOLATE)
    (worker,) = await place.workers()
    label = f"{'k' * 63}={'v' * 63}"
    labelled = await place.fleet("worker", "label", worker.worker_id, label, "--reason", "long")
    assert labelled.code == 0, labelled.err
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token_of(place), look)
        every = PAGES | {f"/workers/{worker.worker_id}": "worker"}
        for path, name in every.items():
            await console.goto(path)
            await console.page.wait_for_selector("#live.good")
            await console.state(f"page-{name}")
        assert console.complaints == []
        await console.page.get_by_role("button", name="Sign out").click()
        await console.page.wait_for_url("**/console/login")
        await console.assert_accessible()


@pytest.mark.timeout(300)
async def test_what_a_role_does_not_permit_cannot_be_pressed(place: Place) -> None:
    running = await place.up()
    await place.run_to_its_end("api", sys.executable, "-c", VIOLATE)
    (worker,) = await place.workers()
    pressable = {Role.VIEWER: set(), Role.OPERATOR: set(), Role.APPROVER: {"Release"}}
    async with chromium() as browser:
        for role, expected in pressable.items():
            token = await token_for(place, role)
            console = await signed_in(browser, running.admin_url, token)
            await console.goto(f"/workers/{worker.worker_id}")
            buttons = console.page.locator(".actions button:not([disabled])")
            assert set(await buttons.all_inner_texts()) == expected, role
            relabels = console.page.locator("#labels button[type=submit]")
            assert await relabels.is_disabled() == (role is not Role.OPERATOR), role


@pytest.mark.timeout(600)
async def test_the_kill_switch_is_within_reach_of_every_screen(place: Place) -> None:
    """By keyboard, and without scrolling, whatever the fleet is alarmed about."""
    running = await place.up()
    await place.run_to_its_end("api", "true")
    async with chromium() as browser:
        async for console in in_every_look(browser, running.admin_url, token_of(place)):
            await freezes_and_lets_go_on(console)
    frozen = await place.events("fleet.egress_frozen")
    assert [(one.actor, one.detail["why"]) for one in frozen] == [
        ("operator", f"something leaves, {look.name}") for look in LOOKS
    ]
    assert len(await place.events("fleet.leases_unfrozen")) == len(LOOKS)


async def freezes_and_lets_go_on(console: Console) -> None:
    page = console.page
    assert await page.get_by_role("heading", name="The first worker").count() == 0
    await console.act_by_keyboard("Freeze all egress", f"something leaves, {console.look.name}")
    await page.locator("#freeze .chip.bad:has-text('egress frozen')").wait_for()
    await page.locator(".alarm:has-text('operator')").wait_for()
    await console.state("egress-frozen")
    await page.evaluate("scrollTo(0, 0)")
    for button in ("Let what runs go on", "End the freeze"):
        await console.assert_in_first_screen(page.get_by_role("button", name=button))
    await console.act_by_keyboard("Let what runs go on", "the rule is mended")
    await page.locator("#freeze .chip.warn:has-text('leases frozen')").wait_for()
    await console.state("leases-frozen")
    await console.act_by_keyboard("End the freeze", "it was a test")
    await page.locator("#freeze .chip.good:has-text('not frozen')").wait_for()


@pytest.mark.timeout(600)
async def test_a_run_is_approved_from_the_page(place: Place) -> None:
    running = await place.up()
    async with chromium() as browser:
        async for console in in_every_look(browser, running.admin_url, token_of(place)):
            await approves(console, f"run-{console.look.name}")
    made = await place.events("grant.created")
    assert [(one.actor, one.detail["run_id"]) for one in made] == [
        ("operator", f"run-{look.name}") for look in LOOKS
    ]
    assert len(await place.events("grant.withdrawn")) == len(LOOKS)


async def approves(console: Console, run_id: str) -> None:
    """By keyboard: the form from its first field to its button, and the approval taken back."""
    page = console.page
    await console.goto("/approvals")
    await page.wait_for_selector("#live.good")
    await console.tab_to(page.get_by_text("Approve a run"))
    await page.keyboard.press("Enter")
    fields = {"Run": run_id, "Tool": "codegen", "On whose behalf": "alice"}
    for name, value in fields.items():
        await console.tab_to(page.get_by_label(name, exact=True))
        await page.keyboard.type(value)
    await console.tab_to(page.get_by_label("Egress profile"))
    assert await page.get_by_label("Egress profile").input_value() == "api"
    await console.tab_to(page.get_by_label("For how many minutes"))
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type("5")
    await console.state("grant-asked")
    await page.keyboard.press("Enter")
    await page.locator(f"tr:has-text('{run_id}')").wait_for()
    await page.locator("#grant-said:has-text('is approved')").wait_for()
    await console.state("grant")
    await console.act_by_keyboard("Withdraw", "not today")
    await page.locator(f"tr:has-text('{run_id}') .chip.warn:has-text('withdrawn')").wait_for()


@pytest.mark.timeout(300)
async def test_what_a_worker_chose_is_shown_and_never_run(place: Place) -> None:
    """Its path is shown to operators as text, whatever it spells."""
    running = await place.up()
    hostile = f"{METADATA_URL}%3Cimg%20src=x%20onerror=alert(1)%3E<script>alert(1)</script>"
    program = f"import urllib.request; urllib.request.urlopen({hostile!r})"
    await place.run_to_its_end("api", sys.executable, "-c", program)
    async with chromium() as browser:
        console: Console = await signed_in(browser, running.admin_url, token_of(place))
        await console.goto("/violations")
        assert await console.page.locator("main script, main img").count() == 0
        assert console.complaints == []
