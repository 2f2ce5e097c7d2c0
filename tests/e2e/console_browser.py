"""A real browser on the console: Debian's Chromium through Playwright, and axe for accessibility.

`Console` signs in, keeps what the browser complains about, and takes pictures into `out/console/`.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

PICTURES: Final = Path(__file__).parents[2] / "out" / "console"
DESK: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 390, "height": 844}
_MILDER: Final = frozenset({"minor"})


@dataclass(slots=True)
class Console:
    """One signed-in page. `complaints` are errors in the browser's console and in its scripts."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    async def goto(self, path: str) -> None:
        await self.page.goto(f"{self.url}/console{path}")

    async def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    async def act(self, button: str, reason: str) -> None:
        """Press a button that asks for a reason, and give it."""
        await self.page.get_by_role("button", name=button, exact=True).first.click()
        await self.page.fill("#ask-reason", reason)
        await self.page.click("#ask-do")

    async def assert_accessible(self) -> None:
        found = await Axe().run(self.page)
        serious = [
            f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']][:3]}"
            for one in found.response["violations"]
            if one["impact"] not in _MILDER
        ]
        assert serious == [], self.page.url

    async def assert_fits(self) -> None:
        """Nothing makes the page itself scroll sideways."""
        over = await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert over <= 0, self.page.url


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


async def signed_in(
    browser: Browser,
    url: str,
    token: str,
    *,
    size: dict[str, int] | None = None,
    dark: bool = False,
) -> Console:
    """Sign in as a person would, on a screen of that size and colours."""
    context = await browser.new_context(
        viewport=size or DESK,  # type: ignore[arg-type]  # a mapping of the same shape
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    page = await context.new_page()
    console = Console(page, url)
    page.on("pageerror", lambda error: console.complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            console.complaints.append(message.text) if message.type == "error" else None
        ),
    )
    await console.goto("")
    await page.fill("#token", token)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/console")
    await page.wait_for_selector("#live.good")
    return console
