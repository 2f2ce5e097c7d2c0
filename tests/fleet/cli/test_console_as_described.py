"""What the console's JSON routes answer is what their OpenAPI document says.

schemathesis tries every operation but signing out (which would end the session it works with), as
who may do everything: no 500, no status, content type or body that the document lacks. Who may do
what is tests/fleet/console/test_gate.py's.
"""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from palyra_fleet.console.gate import COOKIE, CSRF_HEADER
from palyra_fleet.console.openapi import console_openapi_bytes
from palyra_fleet.console.routes import CONSOLE_ROUTES
from tests.fleet.cli.conftest import Shell, running
from tests.fleet.cli.test_as_described import CHECKS, SCHEMATHESIS


async def signed_in(url: str, token: str) -> dict[str, str]:
    """The headers of somebody who is signed in, and the document as they are served it."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser:
        login = f"{url}/console/v1/auth/login"
        async with browser.post(login, json={"token": token}) as answer:
            assert answer.status == 200
            told = await answer.json()
            headers = {
                "Cookie": f"{COOKIE}={answer.cookies[COOKIE].value}",
                CSRF_HEADER: told["csrf_token"],
            }
        async with browser.get(f"{url}/console/v1/openapi.json", headers=headers) as answer:
            assert await answer.read() == console_openapi_bytes(CONSOLE_ROUTES)
    return headers


@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_the_console_gives_no_answer_that_is_not_in_its_document(
    shell: Shell, tmp_path: Path
) -> None:
    async with running(shell, "--nodes", "--enrolment", "127.0.0.1:0", "--node", "127.0.0.1:0"):
        url = (shell.home / "admin.url").read_text().strip()
        document = tmp_path / "console.json"
        document.write_bytes(console_openapi_bytes(CONSOLE_ROUTES))
        token = (shell.home / "operator.token").read_text().strip()
        given = [
            part
            for name, value in (await signed_in(url, token)).items()
            for part in ("--header", f"{name}: {value}")
        ]
        process = await asyncio.create_subprocess_exec(
            *(SCHEMATHESIS, "run", str(document), "--url", url, "--no-color", *given),
            *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
            *("--exclude-path-regex", "logout$", "--max-examples", "1", "--seed", "1"),
            cwd=shell.home,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()[-6000:]
        paths = json.loads(document.read_bytes())["paths"]
        tried = sum(map(len, paths.values())) - 1
        assert f"Tested: {tried}" in said.decode(), said.decode()[-3000:]
