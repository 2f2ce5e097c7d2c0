"""Real programs run as workers: exit codes, orders that end them, and what is left behind."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from palyra_fleet.client import FleetProblem
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import CleanupReport
from palyra_fleet.worker.artifacts import Carriage
from palyra_fleet.worker.held_run import ProgramNotStarted
from palyra_fleet.worker.isolation.sandbox import Isolation
from palyra_fleet.worker.launcher import ArtifactNotFound
from palyra_fleet.worker.receipt import ReceiptRefused
from palyra_fleet.worker.workspace import WorkspaceRefused
from tests.fakes.manual_time import STUCK_AFTER_S, ManualTime
from tests.fakes.receipt_proxy import ReceiptProxy
from tests.fakes.worker_bench import Bench
from tests.fakes.worker_bench import bench as make_bench

CLEAN = CleanupReport(workspace_removed=True, processes_ended=True, secrets_removed=True)


LOOPS = 3
"""Of a session with a lease: heartbeats, proofs, renewals. Each sleeps on the session's clock."""


@pytest.fixture
def time() -> ManualTime:
    return ManualTime()


@pytest.fixture
async def played(time: ManualTime) -> AsyncIterator[Bench]:
    async with make_bench(time) as made:
        yield made


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("code", [0, 1, 3, 77, 255])
async def test_the_exit_code_is_the_programs_own(bench: Bench, code: int) -> None:
    assert await bench.run(["/bin/sh", "-c", f"exit {code}"]) == code
    assert bench.worker.cleanups == [CLEAN]
    assert bench.said == []


async def test_a_program_that_a_signal_ended_exits_with_128_and_its_number(bench: Bench) -> None:
    assert await bench.run(["/bin/sh", "-c", "kill -USR1 $$"]) == 128 + 10


async def test_the_workspace_is_private_while_it_runs_and_gone_after(bench: Bench) -> None:
    script = """
root = os.environ["PALYRA_WORKSPACE"]
open(os.path.join(root, "left-behind"), "w").close()
os.makedirs(os.path.join(root, "closed", "deep"))
os.chmod(os.path.join(root, "closed"), 0)
os.symlink(sys.argv[2], os.path.join(root, "leads-out"))
say(oct(os.stat(root).st_mode & 0o777) + " " + root)
"""
    outside = bench.home / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    assert await bench.run([*bench.program(script), str(outside)]) == 0
    mode, root = (await bench.heard()).split()
    assert mode == oct(0o700)
    assert Path(root).parent == bench.workspaces
    assert list(bench.workspaces.iterdir()) == []
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert bench.worker.cleanups == [CLEAN]


async def test_the_program_sees_the_lease_and_no_proxy_setting_of_ours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bench,
        "settings",
        type(bench.settings)(
            session=bench.settings.session,
            run_id=bench.settings.run_id,
            combined_bundle=bench.settings.combined_bundle,
            palyra_ca=bench.settings.palyra_ca,
            workspace_parent=bench.settings.workspace_parent,
            inherited={
                **os.environ,
                "No_Proxy": "evil.example",
                "PALYRA_FLEET_TOKEN_FILE": "/somewhere",
                "KEPT": "yes",
            },
        ),
    )
    script = "import json\nsay(json.dumps(dict(os.environ)))"
    assert await bench.run(bench.program(script)) == 0
    seen = json.loads(await bench.heard())
    assert seen["https_proxy"].endswith(f"@{bench.proxy.address}")
    assert seen["https_proxy"].startswith(f"http://{seen['PALYRA_LEASE_ID']}:")
    assert (seen["NO_PROXY"], seen["no_proxy"], seen["KEPT"]) == ("", "", "yes")
    assert not {"No_Proxy", "PALYRA_FLEET_TOKEN_FILE"} & set(seen)
    assert seen["TMPDIR"].startswith(seen["PALYRA_WORKSPACE"])


async def test_a_quarantine_ends_the_whole_group_and_says_so(bench: Bench) -> None:
    script = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
say(f"{os.getpid()} {child.pid}")
wait()
"""
    running = spawn(bench.run(bench.program(script)), "run")
    pids = [int(text) for text in (await bench.heard()).split()]
    await bench.fleet.service.quarantine("operator", bench.worker_id, "tried a private target")
    assert await running == 128 + 15
    assert not any(map(is_alive, pids))
    assert "quarantined: tried a private target" in bench.said[0]
    assert list(bench.workspaces.iterdir()) == []


async def test_a_program_that_ignores_the_polite_signal_is_killed(bench: Bench) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('up')\nwait()"
    running = spawn(bench.run(bench.program(script)), "run")
    await bench.heard()
    await bench.fleet.service.quarantine("operator", bench.worker_id, "no")
    assert await running == 128 + 9


async def test_a_revoked_lease_ends_the_run(bench: Bench) -> None:
    running = spawn(bench.run(bench.program("say('up')\nwait()")), "run")
    await bench.heard()
    lease = bench.worker.lease
    assert lease is not None
    await bench.fleet.service.revoke_lease("operator", lease.lease_id, "enough")
    assert await running == 128 + 15
    assert bench.said == ["the fleet ended this run's lease: enough"]


async def test_what_the_program_leaves_running_is_ended_with_it(bench: Bench) -> None:
    script = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
say(str(child.pid))
"""
    assert await bench.run(bench.program(script)) == 0
    assert not is_alive(int(await bench.heard()))
    assert bench.worker.cleanups == [CLEAN]


async def test_a_daemon_that_made_its_own_session_is_found_and_ended(bench: Bench) -> None:
    script = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
say(str(child.pid))
"""
    assert await bench.run(bench.program(script)) == 0
    assert not is_alive(int(await bench.heard()))
    assert bench.worker.cleanups == [CLEAN]


async def test_a_lease_is_renewed_for_as_long_as_the_program_runs(
    time: ManualTime, played: Bench
) -> None:
    bench = played
    running = spawn(bench.run(bench.program("say('up')\nwait()"), ttl_ms=3_000), "run")
    await bench.heard()
    await time.play(15.0, LOOPS, running)
    assert not running.done()
    assert bench.fleet.service.renewed.qsize() >= 5
    lease = bench.worker.lease
    assert lease is not None
    await bench.fleet.service.revoke_lease("operator", lease.lease_id, "enough")
    await running


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("the fleet fails", "the lease ended and no renewal came through"),
        (
            "the lease cannot be longer",
            "the lease ended, and the fleet makes it no longer: its approval is over",
        ),
    ],
)
async def test_a_worker_that_cannot_renew_fences_itself_before_the_end(
    time: ManualTime, played: Bench, fault: str, why: str
) -> None:
    """On a clock that only the test moves: however slow the machine is, the lease does not end
    before the program is up, nor before a renewal was answered."""
    bench = played
    running = spawn(bench.run(bench.program("say('up')\nwait()"), ttl_ms=3_000), "run")
    await bench.heard()
    if fault == "the fleet fails":
        bench.fleet.service.fail_with = RuntimeError("down")
    else:
        bench.fleet.service.renews = False
    await time.play(2.0, LOOPS, running)
    assert not running.done()
    await time.play(3.0, LOOPS, running)
    async with asyncio.timeout(STUCK_AFTER_S):  # a program's end takes time of its own
        assert await running == 128 + 15
    assert bench.said[0] == f"the run was stopped: {why}"


async def test_a_program_that_changed_after_it_was_measured_is_not_started(bench: Bench) -> None:
    script = bench.home / "tool"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(stat.S_IRWXU)
    bench.proxy.before_answer = lambda: script.write_text("#!/bin/sh\nexit 66\n")
    with pytest.raises(ProgramNotStarted, match="changed after it was measured"):
        await bench.run([str(script)])
    assert bench.worker.cleanups == [CLEAN]


async def test_a_program_that_is_no_program_is_not_started(bench: Bench) -> None:
    script = bench.home / "tool"
    script.write_bytes(b"\x7fELF and nothing more")
    script.chmod(stat.S_IRWXU)
    with pytest.raises(ProgramNotStarted, match="cannot be started"):
        await bench.run([str(script)])
    assert bench.worker.cleanups == [CLEAN]


async def test_a_command_that_names_nothing_never_bothers_the_fleet(bench: Bench) -> None:
    bench.fleet.service.calls.clear()
    with pytest.raises(ArtifactNotFound):
        await bench.run(["no-such-program-anywhere"])
    assert bench.fleet.service.calls == []


async def test_without_a_grant_there_is_no_run_and_nothing_left(bench: Bench) -> None:
    bench.fleet.service.made_grants.clear()
    with pytest.raises(FleetProblem) as refused:
        await bench.run(["/bin/true"])
    assert refused.value.reason == "lease.grant_missing"
    assert list(bench.workspaces.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(407, b"{}"), (200, b"<html>"), (200, b"{}"), (302, b""), (200, b"x" * 200_000)],
)
async def test_without_a_receipt_there_is_no_registration(
    bench: Bench, status: int, body: bytes
) -> None:
    bench.proxy.status, bench.proxy.answer_with = status, body
    with pytest.raises(ReceiptRefused):
        await bench.run(["/bin/true"])
    assert "register" not in bench.fleet.service.calls


async def test_the_receipt_is_asked_for_in_absolute_form(bench: Bench) -> None:
    await bench.run(["/bin/true"])
    (target,) = bench.proxy.targets
    assert target.startswith("GET http://receipt.palyra.internal/v1/receipt?nonce=")


async def test_a_program_starts_only_when_the_proxy_knows_its_lease(bench: Bench) -> None:
    bench.settings = replace(bench.settings, proxy_knows_within_ms=5_000)
    bench.proxy.lease_statuses = [503, 403, 204]
    assert await bench.run(["/bin/sh", "-c", "exit 4"]) == 4
    assert len(bench.proxy.lease_credentials) == 3
    lease_id, _, secret = bench.proxy.lease_credentials[0].partition(":")
    assert (len(lease_id), len(secret)) == (26, 43)


async def test_a_program_whose_lease_the_proxy_never_knows_is_not_started(bench: Bench) -> None:
    bench.settings = replace(bench.settings, proxy_knows_within_ms=1)
    bench.proxy.lease_statuses = [403]
    with pytest.raises(ProgramNotStarted, match="did not get to know the lease"):
        await bench.run(bench.program("say('never')"))
    assert bench.worker.cleanups == [CLEAN]
    assert bench.lines.empty()


async def test_a_signal_before_the_program_starts_is_heard_and_nothing_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.settings = replace(bench.settings, proxy_knows_within_ms=60_000)
    bench.proxy.lease_statuses = [503, 204]
    answer = bench.proxy.about_lease

    def interrupted_while_asked(request: web.BaseRequest) -> web.StreamResponse:
        os.kill(os.getpid(), signal.SIGTERM)
        return answer(request)

    monkeypatch.setattr(ReceiptProxy, "about_lease", lambda _, r: interrupted_while_asked(r))
    with pytest.raises(ProgramNotStarted, match="no run: SIGTERM"):
        await bench.run(bench.program("say('never')"))
    assert bench.worker.cleanups == [CLEAN]
    assert bench.lines.empty()


async def test_a_cancelled_run_still_ends_its_program_and_cleans_up(bench: Bench) -> None:
    running = spawn(bench.run(bench.program("say(str(os.getpid()))\nwait()")), "run")
    pid = int(await bench.heard())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_alive(pid)
    assert list(bench.workspaces.iterdir()) == []
    assert bench.worker.cleanups == [CLEAN]


async def test_a_worker_that_is_quarantined_already_does_not_run(bench: Bench) -> None:
    worker = bench.fleet.service.add_worker(b"\0" * 32, bench.worker_id)
    worker.state = "quarantined"
    with pytest.raises(ProgramNotStarted, match="quarantined"):
        await bench.run([sys.executable, "-c", ""])


async def test_an_order_of_an_earlier_session_does_not_end_this_one(bench: Bench) -> None:
    bench.fleet.service.add_worker(b"\0" * 32, bench.worker_id)
    await bench.fleet.service.quarantine("operator", bench.worker_id, "long ago")
    await bench.fleet.service.release("operator", bench.worker_id, "forgiven")
    assert await bench.run(["/bin/sh", "-c", "exit 4"]) == 4


async def test_the_worker_beats_and_says_which_lease_it_holds(bench: Bench) -> None:
    bench.fleet.service.heartbeat_within_ms = 20
    running = spawn(bench.run(bench.program("say('up')\nwait()")), "run")
    await bench.heard()
    lease = bench.worker.lease
    assert lease is not None
    for _ in range(3):
        await bench.fleet.service.beaten.get()
    assert bench.worker.beats[-1].held_leases[0].lease_id == lease.lease_id
    numbers = [beat.seq for beat in bench.worker.beats]
    assert numbers == sorted(set(numbers))
    bench.worker.lease = None  # the fleet forgets the lease: the next answer says to stop it
    assert await running == 128 + 15
    assert "the fleet does not hold this lease" in bench.said[0]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({}, "cannot be enforced without isolation"),
        (
            {"isolation": Isolation(), "carriage": Carriage(outputs=("report",))},
            "leaves no outputs",
        ),
    ],
)
async def test_a_read_only_workspace_that_cannot_be_kept_is_refused_before_anything_is_asked(
    bench: Bench, asked: dict[str, Any], why: str
) -> None:
    bench.settings = replace(bench.settings, read_only=True, **asked)
    bench.fleet.service.calls.clear()
    with pytest.raises(WorkspaceRefused, match=why):
        await bench.run(["/bin/true"])
    assert bench.fleet.service.calls == []
    assert list(bench.workspaces.iterdir()) == []
