"""The console as a person meets it: a real browser, real programs, pictures in out/console/."""

import json
import re
import sys
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Locator

from palyra_fleet.wire.principal_models import Role
from tests.e2e.console_browser import PHONE, Console, chromium, signed_in
from tests.e2e.place import FLEET, METADATA_URL, Place
from tests.fakes.until import until

PAGES = (
    "",
    "/workers",
    "/leases?state=all",
    "/violations",
    "/approvals",
    "/nodes",
    "/policies",
    "/audit",
)
VIOLATE = f"import urllib.request; urllib.request.urlopen({METADATA_URL!r})"
READ = "import urllib.request; urllib.request.urlopen({url!r}).read()"
REFUSED = "the server responded with a status of 409"


def token_of(place: Place) -> str:
    return (place.home / "operator.token").read_text().strip()


async def says_a_number(cell: Locator) -> bool:
    return (await cell.inner_text()).strip() not in {"", "0"}


async def token_for(place: Place, role: Role) -> str:
    made = await place.fleet("principal", "create", f"a-{role}", "--role", role, "--reason", "test")
    return made.out.strip()


@pytest.mark.timeout(300)
async def test_a_violation_appears_by_itself_and_one_screen_tells_the_whole_story(
    place: Place,
) -> None:
    running = await place.up()
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token_of(place))
        page = console.page
        assert await page.get_by_role("heading", name="The first worker").is_visible()
        await console.picture("first-run")

        await place.run_to_its_end("api", sys.executable, "-c", VIOLATE)
        await page.wait_for_selector(".tile.bad:has-text('1')")
        await console.picture("overview-quarantined")

        # the proxy tells every three seconds, and the page looks again by itself
        await page.wait_for_selector("#decisions .chip.bad:has-text('1 refused')")
        assert "egress.metadata_target" in await page.locator("#refusals").inner_text()
        table = page.locator("#decisions-table")
        await table.locator("summary").click()
        assert "Refused" in await table.inner_text()
        await console.assert_accessible()
        await console.picture("overview-traffic")

        await page.get_by_role("link", name="Violations", exact=True).click()
        await page.locator("table a.id").first.click()
        story = await page.locator(".cause").inner_text()
        assert "GET http://169.254.169.254:80/latest/meta-data/" in story
        assert "egress.metadata_target" in story
        assert "policy.yaml" in story
        assert re.search(r"Today\s+refused", story)
        assert "registered" in await page.locator("main").inner_text()
        await console.picture("worker-quarantined")

        await console.act("Release", "looked at it")
        wrong = page.locator("#ask-wrong:not([hidden])")
        assert "no valid evidence newer than its quarantine" in await wrong.inner_text()
        await page.get_by_role("button", name="Cancel").click()

        # it attests again with a new key, stays out, and then is let in from the page
        same = ("--worker-id", page.url.rpartition("/")[2])
        again = await place.run_to_its_end("api", "true", options=same)
        assert "the worker is quarantined" in again.err
        await console.act("Release", "a library's habit; it attested again")
        await page.locator("h1 .chip.good:has-text('available')").wait_for()
        assert await page.locator(".cause").count() == 0
        assert "a library's habit" in await page.locator(".events").inner_text()
        await console.picture("worker-released")

        await place.run_to_its_end("api", sys.executable, "-c", VIOLATE, options=same)
        await page.get_by_role("heading", name="Why it is quarantined").wait_for()
        await console.act("Ban", "it tried to read the machine's credentials")
        await page.get_by_role("heading", name="Why it is banned").wait_for()
        await page.locator("h1 .chip.bad:has-text('banned')").wait_for()
        assert await page.locator(".actions button").count() == 0
        await console.picture("worker-banned")
        assert [one for one in console.complaints if REFUSED not in one] == []
    (released,) = await place.events("worker.released_by_operator")
    assert released.detail["why"] == "a library's habit; it attested again"
    (banned,) = await place.events("worker.banned_by_operator")
    assert banned.actor == "operator"
    assert banned.detail["why"] == "it tried to read the machine's credentials"
    assert banned.detail["from"] == "127.0.0.1"


@pytest.mark.timeout(300)
async def test_the_policy_in_force_is_explained_and_what_changed_is_told(place: Place) -> None:
    running = await place.up()
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token_of(place))
        page = console.page
        await console.goto("/policies")
        assert "Nothing since the proxy started." in await page.locator("main").inner_text()
        # which rule decided how often is told by the proxy every three seconds
        url = place.upstreams.url("api.example", "/open/x")
        done = await place.run_to_its_end("api", sys.executable, "-c", READ.format(url=url))
        assert done.code == 0, done.err
        counted = page.locator("#rules tr:has-text('api-net') td.number").first
        await until("a verdict is counted", lambda: says_a_number(counted))
        await console.picture("policies-counted")
        await page.select_option("#explain-profile", "api")
        await page.select_option("#explain-method", "POST")
        await page.fill("#explain-url", f"https://api.example:{place.upstreams.port}/open/x")
        await page.get_by_role("button", name="Explain").click()
        steps = await page.locator("table.steps").inner_text()
        assert "egress.method_not_allowed" in steps
        assert await page.locator(".chip.bad:has-text('refused')").count() == 1

        wider = place.policy_file.read_text().replace("methods: [GET]", "methods: [GET, POST]")
        place.policy_file.write_text(wider)

        async def the_page_says(text: str) -> bool:
            await page.reload()
            return text in await page.locator("main").inner_text()

        await until("the change is told", lambda: the_page_says("allows more"))
        assert await page.locator(".chip.good:has-text('allowed')").count() == 1
        await console.picture("policies")

        place.policy_file.write_text(wider.replace("hosts:", "hsots:", 1))
        await until("the problem is told", lambda: the_page_says("did you mean"))
        assert console.complaints == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("look", "size", "dark"),
    [("light", None, False), ("dark", None, True), ("phone", PHONE, False)],
)
async def test_every_page_is_readable_whatever_the_screen(
    place: Place, look: str, size: dict[str, int] | None, dark: bool
) -> None:
    running = await place.up()
    await place.run_to_its_end("api", sys.executable, "-c", VIOLATE)
    (worker,) = await place.workers()
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token_of(place), size=size, dark=dark)
        for path in (*PAGES, f"/workers/{worker.worker_id}"):
            await console.goto(path)
            await console.page.wait_for_selector("#live.good")
            await console.picture(f"{look}{path.replace('/', '-')[:12]}")
            await console.assert_accessible()
            await console.assert_fits()
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


@pytest.mark.timeout(300)
async def test_a_device_is_paired_by_a_code_from_the_page_and_approved_there(place: Place) -> None:
    listeners = ("--enrolment", "127.0.0.1:0", "--node", "127.0.0.1:0")
    serve = await place.programs.start(
        *(FLEET, "serve", "--admin", "127.0.0.1:0", "--nodes", *listeners),
        environment=place.environment,
    )
    await serve.err.holds("operator.token\n")
    said = dict(line.split(":", 1) for line in serve.err.text.splitlines() if ":" in line)
    url = said["operators"].strip()
    async with chromium() as browser:
        console = await signed_in(browser, url, token_of(place))
        page = console.page
        await console.goto("/approvals")
        await page.get_by_role("button", name="Show a code").click()
        await page.wait_for_selector("#minted-qr[src^='data:image/svg+xml']")
        assert await page.locator("#minted-qr").evaluate("one => one.naturalWidth") > 0
        await console.picture("pairing-code")
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
        await console.picture("pairing-approval")
        await console.act("Approve", "the fingerprints are the same")
        assert await install.ended() == 0

        devices = await (await page.request.get(f"{url}/console/v1/devices")).json()
        assert devices["page"]["has_more"] is False
        assert [one["client_kind"] for one in devices["devices"]] == ["node"]
        device_id = devices["devices"][0]["device_id"]
        node = await place.programs.start(FLEET, "node", "run", environment=place.environment)
        await console.goto("/nodes")
        await page.locator(".chip.good:has-text('connected')").wait_for()
        await page.get_by_role("button", name="Ask for its health").click()
        await page.locator("#answer:not([hidden])").wait_for()
        assert '"success": true' in await page.locator("#answer-text").inner_text()
        await console.picture("nodes")
        await console.act("Demand a new key", "the disk was copied")
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
        await console.act("Revoke", "the machine is gone")
        await node.ended()
        assert console.complaints == []
    assert urlsplit(url).hostname == "127.0.0.1"


@pytest.mark.timeout(300)
async def test_a_run_is_approved_from_the_page(place: Place) -> None:
    running = await place.up()
    async with chromium() as browser:
        console = await signed_in(browser, running.admin_url, token_of(place))
        page = console.page
        await console.goto("/approvals")
        await page.get_by_text("Approve a run").click()
        await page.get_by_label("Run", exact=True).fill("run-from-the-page")
        await page.get_by_label("Tool").fill("codegen")
        await page.get_by_label("On whose behalf").fill("alice")
        await page.get_by_label("Egress profile").select_option("api")
        await page.get_by_label("For how many minutes").fill("5")
        await console.assert_accessible()
        await page.get_by_role("button", name="Approve", exact=True).click()
        await page.locator("td:has-text('run-from-the-page')").wait_for()
        assert "is approved" in await page.locator("#grant-said").inner_text()
        await console.picture("grant")
        assert console.complaints == []
    (made,) = await place.events("grant.created")
    assert (made.actor, made.detail["run_id"]) == ("operator", "run-from-the-page")


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
