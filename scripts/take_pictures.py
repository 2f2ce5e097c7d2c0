"""Takes the pictures of the console that the documents show. `make pictures` runs it.

Starts `palyra-egress up` with a sample policy in a folder of its own, lets a worker break it, and
looks at what an operator sees, in the system's Chromium.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import Page, async_playwright

ROOT: Final = Path(__file__).parent.parent
PICTURES: Final = ROOT / "docs" / "images"
EGRESS: Final = Path(sys.executable).with_name("palyra-egress")
POLICY: Final = "policies/coding-agent.yaml"
VIOLATE: Final = """
import contextlib, urllib.request
for url in ("http://paste.example/a", "http://paste.example/b", "http://files.example/",
            "http://169.254.169.254/latest/meta-data/"):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(url)
"""


async def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed; scripts/system-packages installs it")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as directory:
        home = Path(directory)
        environment = {**os.environ, "PALYRA_HOME": directory}
        up = await asyncio.create_subprocess_exec(
            *(EGRESS, "up", "--policy", POLICY, "--listen", "127.0.0.1:0"),
            *("--admin", "127.0.0.1:0"),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await _until_up(up)
            await _look(chromium, home, environment)
        finally:
            up.terminate()
            await up.wait()


async def _until_up(up: asyncio.subprocess.Process) -> None:
    if up.stdout is None:
        raise RuntimeError("there is no output to read")
    async for line in up.stdout:
        if b"stops everything in order" in line:
            return
    sys.exit("the installation did not start")


async def _look(chromium: str, home: Path, environment: dict[str, str]) -> None:
    url = (home / "admin.url").read_text().strip()
    token = (home / "operator.token").read_text().strip()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1180, "height": 820})
        await page.goto(f"{url}/console")
        await page.fill("#token", token)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_selector("#live.good")
        worker = await asyncio.create_subprocess_exec(
            *(EGRESS, "run", "--profile", "coding", "--", sys.executable, "-c", VIOLATE),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await worker.wait()
        await page.wait_for_selector(".tile.bad")
        await page.wait_for_selector("#decisions rect.bad")  # told by the proxy a little later
        await _take(page, "console-overview")
        await page.goto(f"{url}/console/policies")
        await page.wait_for_selector("#live.good")
        await _take(page, "console-policies")
        await page.goto(f"{url}/console")
        await page.locator("table a.id").first.click()
        await page.wait_for_selector(".cause")
        await _take(page, "console-worker")
        await browser.close()


async def _take(page: Page, name: str) -> None:
    await page.screenshot(path=PICTURES / f"{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
