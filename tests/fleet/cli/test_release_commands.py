"""Two persons release a worker from the command line, against a fleet that takes two."""

import json
from pathlib import Path

from palyra_fleet.wire.keys import SigningKey
from tests.fakes.receipt_proxy import receipt_proxy
from tests.fleet.cli.conftest import Said, Shell, running, shell
from tests.fleet.cli.test_commands import enrol_everything, run_command

__all__ = ["shell"]
WORKER = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def _quarantined_and_back(fleet: Shell) -> None:
    """The worker ran, was stopped by an operator, and has attested with a new key."""
    proxy_key = SigningKey.generate()
    await enrol_everything(fleet, proxy_key, "sh")
    async with receipt_proxy(proxy_key) as proxy:
        command = run_command(fleet, proxy.address, "sh", "-c", ":")
        again = (*command[:2], "--worker-id", WORKER, *command[2:])
        assert (await fleet(*again)).code == 0
        assert (await fleet("worker", "quarantine", WORKER, "--reason", "odd")).code == 0
        refused = await fleet(*again)
        assert "the worker is quarantined" in refused.err, refused


async def _somebody(fleet: Shell, name: str, role: str) -> Path:
    made = await fleet("principal", "create", name, "--role", role, "--reason", "for the test")
    file = fleet.home / f"{name}.token"
    file.touch(0o600)
    file.write_text(made.out)
    return file


async def test_one_asks_another_approves_and_each_is_told_what_is_still_needed(
    shell: Shell,
) -> None:
    async with running(shell, "--two-person-release"):
        await _quarantined_and_back(shell)
        olga = await _somebody(shell, "olga", "operator")
        anna = await _somebody(shell, "anna", "approver")

        async def act(who: Path | None, verb: str, *words: str) -> Said:
            token = () if who is None else ("--token-file", str(who))
            return await shell("worker", verb, *words, "--reason", "looked at", *token)

        alone = await act(None, "release", WORKER)
        assert (alone.code, "[worker.release_requires_second_person]" in alone.err) == (1, True)
        assert "request-release" in alone.err
        asked = await act(olga, "request-release", WORKER, "-o", "json")
        release_id = json.loads(asked.out)["release_id"]
        assert "still quarantined: another person must approve by " in asked.err
        assert f"palyra-fleet worker approve-release {release_id}" in asked.err
        waiting = await shell("worker", "requests")
        assert all(word in waiting.out for word in (release_id, WORKER, "olga", "looked at"))
        twice = await act(None, "request-release", WORKER)
        assert (twice.code, "[worker.release_already_requested]" in twice.err) == (1, True)
        assert "api.role_refused" in (await act(olga, "approve-release", release_id)).err
        assert (await act(olga, "withdraw-release", release_id)).err == "withdrawn\n"
        asked = await act(None, "request-release", WORKER, "-o", "json")
        release_id = json.loads(asked.out)["release_id"]
        same = await act(None, "approve-release", release_id)
        assert (same.code, "[worker.release_by_same_person]" in same.err) == (1, True)
        done = await act(anna, "approve-release", release_id, "-o", "json")
        assert json.loads(done.out)["admission"] == "active"
        assert (await shell("worker", "requests")).err == "none\n"
