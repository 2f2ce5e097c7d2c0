"""What the console's JSON routes answer is what their OpenAPI document says, whoever asks.

schemathesis tries every operation but signing out, as somebody without a session and as a principal
of each role: no 500, no status, content type or body that the document lacks, and no answer beyond
what the console's table gives to that role.
"""

from pathlib import Path

import aiohttp
import pytest

from palyra_fleet.api.problems import ApiReason
from palyra_fleet.console.gate import COOKIE, CSRF_HEADER
from palyra_fleet.console.openapi import console_openapi_bytes
from palyra_fleet.console.routes import CONSOLE_ROUTES
from tests.fleet.cli.conftest import Shell, running
from tests.fleet.cli.described import (
    CALLERS,
    NOBODY,
    TIMEOUT_S,
    assert_no_access_beyond_the_table,
    own_name,
    try_all,
)

WITHOUT = {("POST", "/console/v1/auth/logout"): "it ends the session that the others need"}


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
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("caller", CALLERS)
async def test_the_console_gives_no_answer_that_is_not_in_its_document(
    shell: Shell, tmp_path: Path, caller: str
) -> None:
    async with running(shell, "--nodes", "--enrolment", "127.0.0.1:0", "--node", "127.0.0.1:0"):
        url = (shell.home / "admin.url").read_text().strip()
        headers = {"Cookie": f"{COOKIE}=no-session", CSRF_HEADER: "no-token"}
        if caller != NOBODY:
            made = ("principal", "create", own_name(caller), "--role", caller, "--reason", "test")
            headers = await signed_in(url, (await shell(*made)).out.strip())
        document = console_openapi_bytes(CONSOLE_ROUTES)
        tried = await try_all(url, document, caller, headers, tmp_path, without=WITHOUT)
    refused_as = ApiReason.SESSION_NEEDED if caller == NOBODY else ApiReason.ROLE_REFUSED
    assert_no_access_beyond_the_table(tried, refused_as=frozenset({refused_as}))
