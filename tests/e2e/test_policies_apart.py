"""Fleet and proxy as two programs: the fleet shows and explains what the proxy has in force."""

import signal
from collections.abc import Awaitable, Callable

import pytest

from palyra_fleet.client import FleetProblem
from palyra_fleet.wire.policy_models import CheckRequest, ExplainRequest, PolicyText, ProxyPolicy
from tests.e2e.apart import PROXY_NAME, Apart
from tests.e2e.console_browser import Console, chromium, signed_in
from tests.e2e.place import METADATA_URL, ask_proxy
from tests.fakes.until import until

URL = "https://api.example:{port}/open/x"


async def policy_of(apart: Apart) -> ProxyPolicy:
    async with apart.place.operator() as operator:
        (found,) = await operator.policies()
    return found


def says(console: Console, text: str) -> Callable[[], Awaitable[bool]]:
    """Whether the page says so, looked at anew."""

    async def look() -> bool:
        await console.page.reload()
        return text in await console.page.locator("main").inner_text()

    return look


@pytest.mark.timeout(300)
async def test_explain_diff_and_replay_with_fleet_and_proxy_apart(apart: Apart) -> None:
    place = apart.place
    puppet = await apart.puppet("run-1")
    assert await ask_proxy(apart.proxy_url, METADATA_URL, puppet.proxy_url) is not None
    url = URL.format(port=place.upstreams.port)
    token = (place.home / "operator.token").read_text().strip()
    admin = (place.home / "admin.url").read_text().strip()
    async with chromium() as browser:
        console = await signed_in(browser, admin, token)
        await console.goto(f"/policies?profile=api&method=POST&url={url}")
        await until("the rules are shown", says(console, "Nothing since the proxy started."))
        page = console.page
        assert "egress.method_not_allowed" in await page.locator("table.steps").inner_text()
        assert PROXY_NAME in await page.locator("main").inner_text()
        before = await policy_of(apart)
        assert (before.heard, before.as_expected) == ("fresh", True)

        text = place.policy_file.read_text()
        place.policy_file.write_text(text.replace("methods: [GET]", "methods: [GET, POST]"))
        await until("the change is told", says(console, "allows more"))
        await until("it is allowed now", says(console, "allowed if every address"))
        place.policy_file.write_text(text.replace("hosts:", "hsots:", 1))
        await until("the problem is told", says(console, "did you mean"))

        await console.goto("/violations")
        today = page.locator("td[data-label=Today]")
        assert "refused" in await today.inner_text()
        assert "egress.metadata_target" in await today.inner_text()
        assert console.complaints == []
    after = await policy_of(apart)
    assert before.standing is not None
    assert after.standing is not None
    assert after.standing.policy_digest != before.standing.policy_digest
    assert after.standing.problems[0].line == 5


@pytest.mark.timeout(300)
async def test_over_the_api_a_request_is_explained_a_bundle_checked_and_a_gone_proxy_shown_so(
    apart: Apart,
) -> None:
    place = apart.place
    await until("the proxy tells its policy", lambda: heard(apart, "fresh"))
    asked = ExplainRequest(
        profile="api", url=URL.format(port=place.upstreams.port), resolved=("127.0.0.1",)
    )
    text = place.policy_file.read_text()
    async with place.operator() as operator:
        found = await operator.explain(asked)
        assert (found.proxy_id, found.explained.rule_id) == (PROXY_NAME, "api")
        assert found.explained.where == f"{place.policy_file}:4"
        puppet = await apart.puppet("run-1")
        (worker,) = await place.workers()
        of_worker = ExplainRequest(worker_id=worker.worker_id, url=asked.url)
        assert (await operator.explain(of_worker)).profile == "api"
        await puppet.exit(0)

        bent = PolicyText(name="egress.yaml", text=text.replace("hosts:", "hsots:", 1))
        checked = (await operator.check_policy(CheckRequest(files=(bent,)))).checked
        assert [(one.file, one.line) for one in checked.problems][:1] == [("egress.yaml", 5)]
        wider = PolicyText(name="egress.yaml", text=text.replace("[GET]", "[GET, POST]", 1))
        checked = (await operator.check_policy(CheckRequest(files=(wider,)))).checked
        assert checked.changes is not None
        assert any(one.widens for one in checked.changes)
        rules = await operator.policy_rules(PROXY_NAME)
        assert [one.rule_id for one in rules.rules] == ["api", "git", "packages"]

        await the_commands_say_the_same(apart, asked.url)
        apart.proxy.signal(signal.SIGTERM)
        assert await apart.proxy.ended() == 0
        await until("the proxy is shown as silent", lambda: heard(apart, "silent"))
        with pytest.raises(FleetProblem, match="to the fleet now") as refused:
            await operator.explain(asked)
        assert (refused.value.status, refused.value.reason) == (503, "policy.proxy_silent")
    token = (place.home / "operator.token").read_text().strip()
    admin = (place.home / "admin.url").read_text().strip()
    async with chromium() as browser:
        console = await signed_in(browser, admin, token)
        await console.goto("/policies")
        said = await console.page.locator("main").inner_text()
        assert f"{PROXY_NAME} cannot be asked now" in said
        assert "may have changed since" in said


async def the_commands_say_the_same(apart: Apart, url: str) -> None:
    """Of `palyra-fleet policy`: what is in force, explained, checked; with exit codes."""
    place = apart.place
    (listed,) = await place.fleet_json("policy", "list")
    assert (listed["proxy_id"], listed["as_expected"]) == (PROXY_NAME, True)
    shown = await place.fleet("policy", "show", PROXY_NAME, "-o", "name")
    assert shown.out.split() == ["api", "git", "packages"]
    allowed = await place.fleet(
        "policy", "explain", url, "--profile", "api", "--resolved", "127.0.0.1"
    )
    assert allowed.code == 0, allowed.err
    assert "egress.allowed" in allowed.out
    assert f"of {PROXY_NAME}" in allowed.err
    refused = await place.fleet("policy", "explain", url, "--profile", "api", "--method", "POST")
    assert (refused.code, "egress.method_not_allowed" in refused.out) == (1, True)
    good = await place.fleet("policy", "check", place.policy_file)
    assert good.code == 0, good.err
    bent = place.directory / "bent.yaml"
    bent.write_text(place.policy_file.read_text().replace("hosts:", "hsots:", 1))
    bad = await place.fleet("policy", "check", bent)
    assert bad.code == 1
    assert bad.out.startswith("bent.yaml:5:")


async def heard(apart: Apart, how: str) -> bool:
    return (await policy_of(apart)).heard == how
