"""`palyra-fleet run` against a fleet and a worker that waits, each in a process of its own."""

import json

from palyra_fleet.wire.keys import SigningKey
from tests.fakes.receipt_proxy import receipt_proxy
from tests.fleet.cli.conftest import Shell, running
from tests.fleet.cli.test_commands import GRANT, enrol_everything

PLACE = ("run", "place", "run-1")


def serve_command(served: Shell, proxy: str, *program: str) -> tuple[str, ...]:
    ca = str(served.home / "ca.pem")
    return (
        *("worker", "serve", "--proxy", proxy, "--runs", "1"),
        *("--launcher-key", str(served.home / "launcher.pem")),
        *("--ca-bundle", ca, "--ca", ca, "--", *program),
    )


async def test_a_run_is_placed_on_a_worker_that_waits_and_whoever_asked_is_told(
    served: Shell,
) -> None:
    proxy_key = SigningKey.generate()
    await enrol_everything(served, proxy_key, "sh")
    placing = await served.start(*PLACE, "--wait", "60", "-o", "json")
    async with receipt_proxy(proxy_key) as proxy:
        worker = await served.start(
            *serve_command(served, proxy.address, "sh", "-c", 'printf "%s" "$PALYRA_RUN_ID"')
        )
        out, err = await placing.communicate()
        ran, trouble = await worker.communicate()
    assert (placing.returncode, ran) == (0, b"run-1"), (err, trouble)
    taken = json.loads(out)
    assert (taken["run_id"], taken["state"]) == ("run-1", "taken")
    events = json.loads((await served("event", "tail", "--lines", "100", "-o", "json")).out)
    reasons = [event["reason"] for event in events]
    assert reasons.index("worker.offered") < reasons.index("worker.assigned")
    assert (await served("run", "offers", "-o", "json")).out == "[]\n"


async def test_a_fleet_that_is_away_meanwhile_is_asked_again_where_it_is_then(shell: Shell) -> None:
    proxy_key = SigningKey.generate()
    async with running(shell):
        await enrol_everything(shell, proxy_key, "sh")
        placing = await shell.start(*PLACE, "--wait", "120", "-o", "json")
    assert placing.stderr is not None
    assert b"the fleet is away" in await placing.stderr.readline()
    async with running(shell), receipt_proxy(proxy_key) as proxy:
        worker = await shell.start(*serve_command(shell, proxy.address, "sh", "-c", "true"))
        out, err = await placing.communicate()
        _, trouble = await worker.communicate()
    assert placing.returncode == 0, (err, trouble)
    assert json.loads(out)["state"] == "taken"


async def test_where_nobody_waits_the_command_says_so_at_once_or_when_the_time_is_up(
    served: Shell,
) -> None:
    assert (await served(*GRANT)).code == 0
    for more in ((), ("--wait", "1")):
        said = await served(*PLACE, *more)
        assert said.code == 1
        assert "no attested worker is available for the requested capabilities" in said.err


async def test_what_is_not_approved_or_cannot_be_carried_is_not_placed(served: Shell) -> None:
    said = await served(*PLACE, "--wait", "600")
    assert (said.code, "no usable grant approves run 'run-1'" in said.err) == (1, True)
    absent = str(served.home / "absent")
    said = await served(*PLACE, "--carry-in", absent)
    assert (said.code, f"{absent}: cannot be read" in said.err) == (2, True), said.err
