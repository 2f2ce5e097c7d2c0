"""A program and everything it started, ended whole and looked for afterwards."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from palyra_fleet.worker.process_group import LEASE_MARK, ProcessGroup

MARK = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
PAUSE = "import signal; signal.pause()"


async def started(
    script: str, mark: str = MARK, working_directory: Path | None = None
) -> ProcessGroup:
    environment = {**os.environ, LEASE_MARK: mark}
    return await ProcessGroup.start(
        (sys.executable, "-c", script), Path(sys.executable), environment, working_directory
    )


async def test_nothing_survives_a_program_that_has_ended() -> None:
    group = await started("raise SystemExit(3)")
    assert await group.wait() == 3
    assert group.survivors() == ()
    assert await group.end()
    assert await group.wait() == 3


async def test_a_stopped_program_is_ended_too() -> None:
    group = await started("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")
    assert await group.end(grace_s=0.2)
    assert await group.wait() in {128 + signal.SIGTERM, 128 + signal.SIGKILL}


async def test_what_ended_while_the_launcher_was_held_up_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group, clock = await started("pass"), asyncio.get_running_loop().time
    assert await group.wait() == 0
    looks = iter([(group.leader,)])

    def held_up(_self: ProcessGroup) -> tuple[int, ...]:
        found, over_s = next(looks, ()), clock() + 0.05
        while clock() < over_s:
            pass
        return found

    monkeypatch.setattr(ProcessGroup, "survivors", held_up)
    assert await group._gone_within(0.02, again=False)
    assert await group.end()


async def test_the_first_signal_is_the_one_that_was_asked_for() -> None:
    group = await started("print(flush=True); import signal; signal.pause()")
    assert await group.end(signal.SIGHUP)
    assert await group.wait() == 128 + signal.SIGHUP


async def test_a_program_of_another_lease_is_left_alone() -> None:
    other = await started(PAUSE, mark="01ARZ3NDEKTSV4RRFFQ69G5FAW")
    group = await started(PAUSE)
    assert await group.end()
    assert other.survivors() == (other.leader,)
    assert await other.end()


async def test_a_process_that_only_mentions_the_mark_is_left_alone() -> None:
    bystander = await started(f"# {LEASE_MARK}={MARK}\n{PAUSE}", mark="x")
    group = await started(PAUSE)
    assert await group.end()
    assert bystander.survivors() == (bystander.leader,)
    assert await bystander.end()


# Each hides a process another way, writes its number to a file and ends.
_HIDE = """
import os, signal, sys, time
def hidden(act):
    if os.fork() == 0:
        act()
        open("pid.new", "w").write(str(os.getpid()))
        os.rename("pid.new", "pid")
        while True: signal.pause()
"""
HIDDEN = {
    "a session and an empty environment": """
def act():
    os.setsid()
    if os.fork(): os._exit(0)
    if not os.environ.get("HIDDEN"):
        os.execve(sys.executable, [sys.executable, "-c",
            "import os, signal\\nopen('pid.new', 'w').write(str(os.getpid()))\\n"
            "os.rename('pid.new', 'pid')\\nwhile True: signal.pause()"], {"HIDDEN": "1"})
hidden(act)
""",
    "two forks and a session each": """
def act():
    for _ in range(2):
        os.setsid()
        if os.fork(): os._exit(0)
hidden(act)
""",
    "signals that are ignored": """
def act():
    for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
    os.setsid()
    os.environ.clear()
hidden(act)
""",
}


async def pid_in(place: Path) -> int:
    """The number that the hidden process wrote."""
    return await asyncio.to_thread(_pid_in, place / "pid")


def _pid_in(file: Path) -> int:
    while not file.exists():
        os.sched_yield()
    return int(file.read_text())


@pytest.mark.parametrize("script", HIDDEN.values(), ids=HIDDEN)
async def test_what_hides_from_its_session_and_its_environment_is_found_and_ended(
    script: str, tmp_path: Path
) -> None:
    group = await started(_HIDE + script, working_directory=tmp_path)
    pid = await pid_in(tmp_path)
    assert await group.wait() == 0
    assert pid in group.survivors()
    assert await group.end(grace_s=0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_that_kills_its_keeper_is_reported_as_not_ended(tmp_path: Path) -> None:
    script = (
        "os.kill(os.getppid(), signal.SIGKILL)\nhidden(lambda: (os.setsid(), os.environ.clear()))"
    )
    group = await started(_HIDE + script, working_directory=tmp_path)
    pid = await pid_in(tmp_path)
    try:
        assert not await group.end(grace_s=0.2)
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_a_program_cannot_trace_its_keeper() -> None:
    script = (
        "import ctypes, os\n"
        "attached = ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0)\n"
        "raise SystemExit(0 if attached == -1 else 1)"
    )
    if os.geteuid() == 0:
        pytest.skip("root may trace anything")
    group = await started(script)
    assert await group.wait() == 0
    assert await group.end()


async def test_a_program_that_stops_its_keeper_is_heard_all_the_same() -> None:
    group = await started("import os, signal; os.kill(os.getppid(), signal.SIGSTOP); os._exit(5)")
    assert await group.wait() == 5
    assert await group.end()


async def test_when_its_launcher_is_killed_the_program_ends(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, sys
from pathlib import Path
from palyra_fleet.worker.process_group import ProcessGroup
async def main():
    group = await ProcessGroup.start(
        (sys.executable, "-c", {PAUSE!r}), Path(sys.executable), {{"PALYRA_LEASE_ID": "x"}}, None)
    print(group.leader, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    launcher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=asyncio.subprocess.PIPE
    )
    assert launcher.stdout is not None
    program = int(await launcher.stdout.readline())
    watched = os.pidfd_open(program)
    launcher.kill()
    await launcher.wait()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_reader(watched, lambda: ended.done() or ended.set_result(None))
    try:
        async with asyncio.timeout(60):
            await ended
    finally:
        asyncio.get_running_loop().remove_reader(watched)
        os.close(watched)


async def test_a_file_that_cannot_be_executed_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await ProcessGroup.start(("x",), tmp_path / "x", {LEASE_MARK: MARK}, None)
