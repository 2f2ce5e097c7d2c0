"""A program and everything it started, ended whole and looked for afterwards."""

import os
import signal
import sys
from pathlib import Path

from palyra_fleet.worker.process_group import LEASE_MARK, ProcessGroup

MARK = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def started(script: str, mark: str = MARK) -> ProcessGroup:
    environment = {**os.environ, LEASE_MARK: mark}
    return await ProcessGroup.start(
        (sys.executable, "-c", script), Path(sys.executable), environment, None
    )


async def test_nothing_survives_a_program_that_has_ended() -> None:
    group = await started("raise SystemExit(3)")
    assert await group.wait() == 3
    assert group.survivors() == ()
    assert await group.end()


async def test_a_stopped_program_is_ended_too() -> None:
    group = await started("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    assert await group.end(grace_s=0.2)
    assert group.process.returncode in {-signal.SIGTERM, -signal.SIGKILL}


async def test_the_first_signal_is_the_one_that_was_asked_for() -> None:
    group = await started("print(flush=True); import signal; signal.pause()")
    assert await group.end(signal.SIGHUP)
    assert group.process.returncode == -signal.SIGHUP


async def test_a_program_of_another_lease_is_left_alone() -> None:
    other = await started("import signal; signal.pause()", mark="01ARZ3NDEKTSV4RRFFQ69G5FAW")
    group = await started("import signal; signal.pause()")
    assert await group.end()
    assert other.survivors() == (other.process.pid,)
    assert await other.end()


async def test_a_process_that_only_mentions_the_mark_is_left_alone() -> None:
    bystander = await started(f"# {LEASE_MARK}={MARK}\nimport signal; signal.pause()", mark="x")
    group = await started("import signal; signal.pause()")
    assert await group.end()
    assert bystander.survivors() == (bystander.process.pid,)
    assert await bystander.end()
