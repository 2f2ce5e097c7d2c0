"""The desktop's and the system's message bus, a real daemon: an isolated program reaches neither.

Whoever may speak to the session bus has the account's services start programs outside. The daemon
listens where such daemons do: in the abstract namespace, below /run or /tmp, on loopback. It serves
no account without a name, so that the ordinary one of these tests is not tried.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fleet.worker.isolation.cell import UNAVAILABLE, Cell

pytestmark = [
    pytest.mark.skipif(
        shutil.which("bwrap") is None,
        reason="bubblewrap is not installed, so isolation was not tried",
    ),
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None or shutil.which("dbus-send") is None,
        reason="dbus-daemon or dbus-send is not installed, so no message bus was tried",
    ),
]

CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <auth>ANONYMOUS</auth>
  <allow_anonymous/>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
LIST_NAMES = ("--print-reply", "--dest=org.freedesktop.DBus", "/", "org.freedesktop.DBus.ListNames")
BUSES = {"session": "DBUS_SESSION_BUS_ADDRESS", "system": "DBUS_SYSTEM_BUS_ADDRESS"}


@contextmanager
def daemon(cell: Cell, address: str) -> Iterator[str]:
    """A bus of the account's own; its full address, once it listens."""
    file = cell.account.directory / "bus.conf"
    file.write_text(CONFIGURATION.format(address=address))
    words = ("dbus-daemon", f"--config-file={file}", "--nofork", "--nopidfile", "--print-address=1")
    with subprocess.Popen(
        (*cell.account.prefix, *words),
        env=cell.account.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def asked(bus: str, address: str) -> tuple[str, ...]:
    return ("/usr/bin/env", f"{BUSES[bus]}={address}", "dbus-send", f"--{bus}", *LIST_NAMES)


def answers(cell: Cell, bus: str, address: str) -> bool:
    """Outside: whether the bus answers this account at all, so that a refusal says something."""
    words = (*cell.account.prefix, *asked(bus, address))
    done = subprocess.run(
        words,
        env=cell.account.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode == 0 and "org.freedesktop.DBus" in done.stdout


@contextmanager
def run_directory(cell: Cell) -> Iterator[str]:
    """A place below /run, where the system's bus and those of logins listen."""
    name = f"/run/palyra-test-{os.getpid()}"
    try:
        os.mkdir(name, 0o755)  # noqa: PTH102 (beside the others' names of this machine)
    except OSError:
        pytest.skip("this account has no place below /run")
    try:
        os.chown(name, cell.account.uid, -1)
        yield name
    finally:
        shutil.rmtree(name)


@contextmanager
def listening(cell: Cell, where: str) -> Iterator[str]:
    if where == "below /run":
        with run_directory(cell) as place, daemon(cell, f"unix:path={place}/bus") as address:
            yield address
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = {
        "abstract": f"unix:abstract=palyra-test-{os.getpid()}-{cell.account.uid}",
        "in /tmp": f"unix:path={cell.account.directory}/bus",
        "on loopback": f"tcp:host=127.0.0.1,port={port}",
    }[where]
    with daemon(cell, made) as address:
        yield address


@pytest.mark.parametrize("bus", list(BUSES))
@pytest.mark.parametrize("where", ["abstract", "below /run", "in /tmp", "on loopback"])
def test_no_message_bus_is_reached(here: Cell, where: str, bus: str) -> None:
    with listening(here, where) as address:
        assert answers(here, bus, address)
        code, out, errors = here.run(*asked(bus, address))
        assert (code, out) == (1, "")
        assert "Failed to open connection" in errors
        assert answers(here, bus, address)


def test_a_bus_that_listens_where_the_program_works_is_found_before_anything_runs(
    here: Cell,
) -> None:
    with daemon(here, f"unix:path={here.project}/bus") as address:
        assert answers(here, "session", address)
        code, out, errors = here.run(*asked("session", address), proven=True)
    assert (code, out) == (UNAVAILABLE, "")
    assert f"socket {here.project}/bus (OUT: connected)" in errors


def test_a_program_that_starts_a_bus_of_its_own_has_it_to_itself(here: Cell) -> None:
    """What it starts is inside, and ends with it."""
    script = (
        "unset DBUS_SESSION_BUS_ADDRESS; "
        "dbus-run-session -- dbus-send --session --print-reply --dest=org.freedesktop.DBus / "
        "org.freedesktop.DBus.GetConnectionUnixProcessID string:org.freedesktop.DBus"
    )
    code, out, errors = here.run("/bin/sh", "-c", script)
    assert code == 0, errors
    assert int(out.split()[-1]) < 20  # a number of the namespace
