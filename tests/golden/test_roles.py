"""What a principal is told that lacks the role: every command that changes something, as a viewer.

Which role may do what is one table, tried route by route in tests/fleet/api.
"""

import asyncio

import pytest

from tests.fleet.cli.conftest import Shell, running, shell
from tests.golden.command_tree import leaves
from tests.golden.transcript import Transcript, compare
from tests.project.test_reference import LOOKS

__all__ = ["shell"]
NODES = ("--nodes", "--enrolment", "127.0.0.1:0", "--node", "127.0.0.1:0")


@pytest.mark.e2e
async def test_what_a_viewer_may_not_do_is_refused_and_the_role_that_may_is_named(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PALYRA_HOME", str(shell.home))
    transcript = Transcript(capsys)
    async with running(shell, *NODES):
        token = shell.home / "vera.token"
        made = await shell("principal", "create", "vera", "--role", "viewer", "--reason", "looks")
        token.write_text(made.out)
        monkeypatch.setenv("PALYRA_FLEET_TOKEN_FILE", str(token))
        for leaf in leaves():
            if leaf.asks_the_fleet:
                code, out, err = await asyncio.to_thread(transcript.quietly, *leaf.asked())
                if "[api.role_refused]" in err:
                    transcript.add(" ".join(leaf.asked()), (code, out, err))
                else:
                    assert leaf.words[-1] in LOOKS or "unknown" in err, (leaf.name, err)
    compare("refused-role", transcript.text())
