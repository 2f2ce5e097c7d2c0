"""Two proxies with different policies: what the console shows, explains and judges again is always
by the policy of the one that is meant."""

import pytest
from playwright.async_api import Locator, expect

from tests.e2e.apart import PROXY_NAME, Apart, start_proxy
from tests.e2e.console_browser import (
    PHONE_DARK,
    Console,
    chromium,
    in_every_look,
    signed_in,
    token_of,
)
from tests.e2e.place import METADATA_URL, ask_proxy
from tests.fakes.until import until

OTHER = "proxy-other"
PASTE = "http://paste.example/secrets"
DENIED = "deny:\n  - {id: paste-sites, hosts: [paste.example], reason: exfiltration}\n"
LET_THROUGH = "  - {id: paste-is-ours, hosts: [paste.example], schemes: [http], ports: [80]}\n"


class Other:
    """The second proxy's policy: as the first one's, with another name, POST, and paste sites that
    quarantine, or that pass."""

    def __init__(self, apart: Apart) -> None:
        self.file = apart.place.directory / "other.yaml"
        first = apart.place.policy_file.read_text()
        self.plain = first.replace("name: e2e", "name: other", 1).replace("[GET]", "[GET, POST]", 1)

    def denies(self) -> None:
        text = self.plain.replace("  quarantine: [", "  quarantine: [host_denied, ")
        self.file.write_text(text.replace("rules:\n", f"{DENIED}rules:\n", 1))

    def lets_through(self) -> None:
        text = self.plain.replace("rules:\n", f"rules:\n{LET_THROUGH}", 1)
        self.file.write_text(text.replace("  api: [api]", "  api: [api, paste-is-ours]", 1))


async def second_proxy(apart: Apart, other: Other) -> Apart:
    """Enrolled and running, with a worker's run granted for each of the two."""
    place = apart.place
    other.denies()
    key = await place.egress("proxy", "key", "--state-dir", place.directory / OTHER)
    assert key.code == 0, key.err
    await apart.command("proxy", "enrol", OTHER, key.out.strip())
    await apart.granted("run-2")
    second = Apart(place, apart.fleet, await start_proxy(place, policy=other.file, name=OTHER))
    await until("the second proxy has heard the fleet", second.has_heard)
    return second


async def both_speak(apart: Apart) -> bool:
    async with apart.place.operator() as operator:
        return [one.heard for one in await operator.policies()] == ["fresh", "fresh"]


@pytest.mark.timeout(600)
async def test_each_proxy_shows_explains_and_judges_by_its_own_policy(apart: Apart) -> None:
    other = Other(apart)
    second = await second_proxy(apart, other)
    first_worker, second_worker = await apart.puppet("run-1"), await second.puppet("run-2")
    for proxy, puppet, url in ((apart, first_worker, METADATA_URL), (second, second_worker, PASTE)):
        assert await ask_proxy(proxy.proxy_url, url, puppet.proxy_url) is not None
    await until("both tell their policies", lambda: both_speak(apart))
    admin = (apart.place.home / "admin.url").read_text().strip()
    url = f"https://api.example:{apart.place.upstreams.port}/open/x"
    async with chromium() as browser:
        async for console in in_every_look(browser, admin, token_of(apart.place)):
            await chooses_and_explains(console, url)
        token = token_of(apart.place)
        phone = await signed_in(browser, admin, token, PHONE_DARK)
        await judges_again(phone, "refused", "by the same rule")
        # the second lets it through from now on; the first would refuse it, as it has no such rule
        other.lets_through()
        await until("it is in force", lambda: in_force(phone))
        await judges_again(phone, "let through", "paste-is-ours")
        assert phone.complaints == []


async def in_force(console: Console) -> bool:
    await console.goto(f"/policies?proxy={OTHER}")
    return "paste-is-ours" in await console.page.locator("main").inner_text()


async def chooses_and_explains(console: Console, url: str) -> None:
    """By keyboard: the one, then the other, with the same question for each."""
    page = console.page
    told = (
        (PROXY_NAME, "e2e", "refused", "egress.method_not_allowed", 0),
        (OTHER, "other", "allowed", "api", 1),
    )
    await console.goto("/policies")
    for proxy, name, verdict, word, denies in told:
        link = page.get_by_role("region", name="Proxies").get_by_role("link", name=proxy)
        await console.tab_to(link)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**proxy={proxy}")
        await page.wait_for_selector("#live.good")
        await expect(link).to_have_attribute("aria-current", "true")
        shown = page.get_by_role("region", name="Proxies").locator("tr:has-text('shown below')")
        await expect(shown).to_contain_text(proxy)
        await expect(page.locator("dt:text-is('Proxy') + dd")).to_have_text(proxy)
        await expect(page.locator("dt:text-is('Name') + dd")).to_have_text(name)
        await expect(page.locator("#rules tr:has-text('paste-sites')")).to_have_count(denies)
        await page.get_by_label("Profile").select_option("api")
        await page.get_by_label("Method").select_option("POST")
        await page.get_by_label("URL").fill(url)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**url=**")
        assert f"proxy={proxy}" in page.url
        await expect(page.locator(f".chip:text-is('{verdict}')")).to_have_count(1)
        await expect(page.locator("main")).to_contain_text(f"of {proxy}")
        await expect(page.locator("table.steps")).to_contain_text(word)
        await page.wait_for_selector("#live.good")
        await console.state(f"policies-of-{proxy}")


async def judges_again(console: Console, verdict: str, word: str) -> None:
    page = console.page
    await console.goto("/violations")
    await page.wait_for_selector("#live.good")

    def today(target: str) -> Locator:
        return page.locator(f"tr:has-text('{target}') td[data-label=Today]")

    await expect(today("169.254.169.254")).to_contain_text("refused")
    await expect(today("paste.example")).to_contain_text(word)
    await expect(today("paste.example").locator(".chip")).to_have_text(verdict)
    await console.state(f"violations-{verdict.replace(' ', '-')}-today")
