"""What `palyra-fleet serve` answers is what its OpenAPI document says, whoever asks.

schemathesis tries every operation of the admin listener, in and out of its schemas, as nobody and
as a principal of each role: no 500, no status, content type or body that the document lacks, and no
answer beyond what the table of routes gives to that role.
"""

from pathlib import Path

import pytest

from palyra_fleet.api.openapi import openapi_bytes
from palyra_fleet.api.problems import ApiReason
from palyra_fleet.api.routes import Listener, rows_of
from tests.fakes.raw_http import ask
from tests.fleet.cli.conftest import Shell, running
from tests.fleet.cli.described import (
    CALLERS,
    NOBODY,
    TIMEOUT_S,
    assert_no_access_beyond_the_table,
    own_name,
    try_all,
)

ENDLESS = {
    (row.method, row.path): "a stream, which ends when its caller goes away"
    for row in rows_of(Listener.ADMIN)
    if row.streams
}


@pytest.mark.e2e
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("caller", CALLERS)
async def test_no_caller_gets_an_answer_that_is_not_in_the_document(
    shell: Shell, tmp_path: Path, caller: str
) -> None:
    async with running(shell, "--nodes", "--enrolment", "127.0.0.1:0", "--node", "127.0.0.1:0"):
        url = (shell.home / "admin.url").read_text().strip()
        token = "not-a-token"
        if caller != NOBODY:
            made = ("principal", "create", own_name(caller), "--role", caller, "--reason", "test")
            token = (await shell(*made)).out.strip()
        document = (await ask(url, "GET", "/openapi.json")).body
        assert document == openapi_bytes(Listener.ADMIN)
        headers = {"Authorization": f"Bearer {token}"}
        tried = await try_all(url, document, caller, headers, tmp_path, without=ENDLESS)
    refused_as = {ApiReason.ROLE_REFUSED}
    if caller == NOBODY:
        refused_as = {ApiReason.TOKEN_REFUSED, ApiReason.TOO_MANY_ATTEMPTS}
    assert_no_access_beyond_the_table(tried, refused_as=frozenset(refused_as))
