"""What serves is closed to its own account, and a crash of it leaves no core file; and everything
that has to look at it still can."""

import sys
from pathlib import Path

from palyra_fleet.doctor.machine import serving_pid
from tests.e2e.apart import set_up_apart
from tests.e2e.place import Place
from tests.e2e.test_isolate_account import place
from tests.e2e.upstreams import API
from tests.fakes.process_limits import NO_CORE_FILES, core_limit

__all__ = ["place"]

LOOK = "import sys; open(f'/proc/{sys.argv[1]}/environ', 'rb').read()"


def serving(socket: Path) -> int:
    pid = serving_pid(socket)
    assert pid is not None
    return pid


def is_closed(pid: int) -> bool:
    """Whether the kernel gives a process's memory to root alone."""
    return Path(f"/proc/{pid}/mem").stat().st_uid == 0


def child_of(pid: int) -> int:
    """The program itself, behind what gave it another account."""
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(told[0]) if told else pid


async def can_be_looked_into(place: Place, pid: int) -> bool:
    """Whether another program of the same account reads this one's environment."""
    asked = (sys.executable, "-c", LOOK, str(pid))
    done = await place.programs.finished(*asked, environment=place.environment)
    closed = "PermissionError" in done.err or "FileNotFoundError" in done.err  # with hidepid
    assert done.code == 0 or closed, done.said
    return done.code == 0


async def test_fleet_and_proxy_leave_no_core_files_and_their_account_cannot_look_into_them(
    place: Place,
) -> None:
    apart = await set_up_apart(place)
    sleeping = await place.programs.start(
        *(sys.executable, "-c", "print('up', flush=True); input()"),
        environment=place.environment,
        with_input=True,
    )
    assert await sleeping.out.line(0) == "up"
    other = child_of(sleeping.process.pid)
    assert await can_be_looked_into(place, other), "the look can succeed"
    sockets = (place.home / "run" / "fleet.sock", place.directory / "proxy" / "admin.sock")
    for pid in map(serving, sockets):
        assert core_limit(pid) in NO_CORE_FILES
        assert not await can_be_looked_into(place, pid)
        assert is_closed(pid)
    done = await place.fleet("doctor", "--skip", "isolation")
    assert done.code == 0 and "leaves no core file" in done.out, done.said
    puppet = await apart.puppet("run-1")
    assert (await puppet.get(place.upstreams.url(API, "/open/thing")))["status"] == 200
