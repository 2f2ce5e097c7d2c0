"""A real browser on the console: Debian's Chromium through Playwright, and axe for accessibility.

`signed_in` opens the console in one of the LOOKS. A `Console` keeps what the browser complains of,
warnings and requests to elsewhere among it, and takes pictures into `out/console/`, which CI keeps.
axe's every finding counts, whatever its impact.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    ViewportSize,
    async_playwright,
    expect,
)

from palyra_fleet.wire.principal_models import Role
from tests.e2e.place import Place

PICTURES: Final = Path(__file__).parents[2] / "out" / "console"
DESK: Final = ViewportSize(width=1280, height=800)
PHONE: Final = ViewportSize(width=390, height=844)
_MOST_STOPS: Final = 80
expect.set_options(timeout=60_000)  # how long a loaded machine may take
_TOO_WIDE: Final = """(boxes) => [...document.querySelectorAll(boxes)]
  .filter((one) => one.scrollWidth > one.clientWidth)
  .map((one) => `${one.localName}.${one.className}: ${one.scrollWidth} > ${one.clientWidth}`)"""


@dataclass(frozen=True, slots=True)
class Look:
    """A screen and its colours."""

    name: str
    size: ViewportSize
    dark: bool

    @property
    def is_phone(self) -> bool:
        return self.size == PHONE


DESK_LIGHT: Final = Look("desk-light", DESK, dark=False)
DESK_DARK: Final = Look("desk-dark", DESK, dark=True)
PHONE_LIGHT: Final = Look("phone-light", PHONE, dark=False)
PHONE_DARK: Final = Look("phone-dark", PHONE, dark=True)
LOOKS: Final = (DESK_LIGHT, DESK_DARK, PHONE_LIGHT, PHONE_DARK)
IN_EVERY_LOOK: Final = pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)


@dataclass(slots=True)
class Console:
    """One signed-in page. `complaints` are what the browser's console said, errors of scripts, and
    requests that went elsewhere."""

    page: Page
    url: str
    look: Look
    complaints: list[str] = field(default_factory=list)

    async def goto(self, path: str) -> None:
        await self.page.goto(f"{self.url}/console{path}")

    async def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        path = PICTURES / f"{name}-{self.look.name}.png"
        whole = await self.page.locator("dialog[open]").count() == 0
        await self.page.screenshot(path=path, full_page=whole)

    async def state(self, name: str) -> None:
        """A state that somebody may see: its picture, and that everybody can read it."""
        await self.picture(name)
        await self.assert_accessible()
        await self.assert_fits()

    async def tab_to(self, target: Locator) -> None:
        """Go there by the Tab key alone."""
        for _ in range(_MOST_STOPS):
            await self.page.keyboard.press("Tab")
            if await target.evaluate("one => one === document.activeElement"):
                return
        raise AssertionError(f"{target} is not reached by the Tab key")

    async def act_by_keyboard(self, button: str, reason: str) -> None:
        """Go to a button that asks for a reason, press it and give the reason, without a mouse."""
        page = self.page
        await self.tab_to(page.get_by_role("button", name=button, exact=True).first)
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#ask-reason:focus")
        await page.keyboard.type(reason)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")

    async def act(self, button: str, reason: str) -> None:
        """Press a button that asks for a reason, and give it."""
        await self.page.get_by_role("button", name=button, exact=True).first.click()
        await self.page.fill("#ask-reason", reason)
        await self.page.click("#ask-do")

    async def assert_accessible(self) -> None:
        found = await Axe().run(self.page)
        wrong = [
            f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
            for one in found.response["violations"]
        ]
        assert wrong == [], f"{self.page.url}: {wrong}"

    async def assert_in_first_screen(self, target: Locator) -> None:
        """All of it is seen without scrolling."""
        box = await target.bounding_box()
        assert box is not None and box["y"] + box["height"] <= self.look.size["height"], box
        assert await self.page.evaluate("window.scrollY") == 0

    async def assert_fits(self) -> None:
        """Nothing makes the page scroll sideways or sticks out of its card; on a phone no table
        scrolls sideways either."""
        boxes = "html, main, .card, dialog[open]" + (", .scroll" if self.look.is_phone else "")
        over = await self.page.evaluate(_TOO_WIDE, boxes)
        assert over == [], f"{self.page.url}: {over}"


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed, so the console was not tried in a browser")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def signed_in(browser: Browser, url: str, token: str, look: Look = DESK_LIGHT) -> Console:
    """Sign in as a person would, on a screen of that size and colours."""
    context = await browser.new_context(
        viewport=look.size,
        color_scheme="dark" if look.dark else "light",
        reduced_motion="reduce",
    )
    page = await context.new_page()
    console = Console(page, url, look)

    def listen(said: ConsoleMessage) -> None:
        if said.type in {"error", "warning"}:
            console.complaints.append(said.text)

    def watch(request: Request) -> None:
        if not request.url.startswith((f"{url}/", "data:")):
            console.complaints.append(f"asked {request.url}")

    page.on("pageerror", lambda error: console.complaints.append(str(error)))
    page.on("console", listen)
    page.on("request", watch)
    await console.goto("")
    await page.fill("#token", token)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/console")
    await page.wait_for_selector("#live.good")
    return console


async def in_every_look(browser: Browser, url: str, token: str) -> AsyncIterator[Console]:
    """Signed in in each of the LOOKS, one after the other; in none did the browser complain."""
    for look in LOOKS:
        console = await signed_in(browser, url, token, look)
        yield console
        assert console.complaints == [], f"{look.name}: {console.complaints}"
        await console.page.context.close()


def token_of(place: Place) -> str:
    """The installation's first token."""
    return (place.home / "operator.token").read_text().strip()


async def token_for(place: Place, role: Role) -> str:
    """The token of a new principal with that role alone."""
    made = await place.fleet("principal", "create", f"a-{role}", "--role", role, "--reason", "test")
    return made.out.strip()
