"""What `palyra-fleet serve` answers is what its OpenAPI document says, whoever asks.

schemathesis tries every operation of the admin listener, in and out of its schemas, as nobody and
as a principal of each role: no 500, no status, content type or body that the document lacks.
"""

import asyncio
import sys
from pathlib import Path

import pytest

from palyra_fleet.api.routes import Listener, rows_of
from palyra_fleet.wire.principal_models import Role
from tests.fleet.cli.conftest import Shell, running

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
ENDLESS = "/v1/events/stream"
"""Ends only when somebody goes away, so schemathesis waits in vain; it has tests of its own."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_no_caller_gets_an_answer_that_is_not_in_the_document(shell: Shell) -> None:
    async with running(shell, "--nodes", "--enrolment", "127.0.0.1:0", "--node", "127.0.0.1:0"):
        url = (shell.home / "admin.url").read_text().strip()
        tokens = {"nobody": "not-a-token"}
        for role in Role:
            made = ("principal", "create", f"{role}-1", "--role", role, "--reason", "test")
            tokens[role] = (await shell(*made)).out.strip()
        for caller, token in tokens.items():
            process = await asyncio.create_subprocess_exec(
                *(SCHEMATHESIS, "run", f"{url}/openapi.json", "--no-color"),
                *("--header", f"Authorization: Bearer {token}"),
                *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
                *("--max-examples", "2", "--seed", "1"),
                *("--exclude-path", ENDLESS),
                cwd=shell.home,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await process.communicate()
            assert process.returncode == 0, f"as {caller}:\n{said.decode()[-6000:]}"
            tried = len(rows_of(Listener.ADMIN)) - 2  # all but the document itself, and ENDLESS
            assert f"Tested: {tried}" in said.decode(), said.decode()[-3000:]
