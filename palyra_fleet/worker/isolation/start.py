"""Starts a program inside its namespaces and takes the door that it hands out.

bubblewrap is started with the filter, a pipe on which it names the first process of the new process
namespace, and a socket for `inside.py`. A failure before the door is there means that nothing of
the program ran: `IsolationUnavailable` says what is missing, with what bubblewrap said.
"""

import asyncio
import contextlib
import json
import os
import platform
import pwd
import socket
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from palyra_fleet.worker.isolation import inside
from palyra_fleet.worker.isolation.core_dumps import keep_crashes_inside
from palyra_fleet.worker.isolation.missing import Kernel, what_is_missing
from palyra_fleet.worker.isolation.namespace import PROXY_PORT, Place, View, namespace_arguments
from palyra_fleet.worker.isolation.streams import program_input, streams_that_lead_elsewhere
from palyra_fleet.worker.isolation.system_calls import UnknownArchitecture, filter_program
from palyra_fleet.worker.process_group import Namespace

START_WITHIN_S: Final = 10.0
BUBBLEWRAP_PLACES: Final = (
    Path("/usr/bin/bwrap"),
    Path("/bin/bwrap"),
    Path("/run/current-system/sw/bin/bwrap"),
)
"""Where systems install it. PATH is not asked: it may name a project's own folder, where an earlier
worker could leave a program that runs outside and isolates nothing, or only the canary."""
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_SAID_CHARACTERS: Final = 500
_INSIDE: Final = Path(inside.__file__).resolve()


class IsolationUnavailable(Exception):
    """This machine cannot isolate a program, or did not; the text says what is missing."""


class NotStarted(Exception):
    """The namespaces are there, and nothing may run in them."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to run inside. The environment holds the lease's secret."""

    executable: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)

    def to_bytes(self, places: Iterable[Place] = ()) -> bytes:
        """For `inside.py`, with the places that must be there what they were."""
        return json.dumps(
            {
                "executable": str(self.executable),
                "arguments": self.arguments,
                "environment": dict(self.environment),
                "places": [[str(place.path), *place.identity] for place in places],
            }
        ).encode()


@dataclass(frozen=True, slots=True)
class Isolated:
    """A started program: bubblewrap, the namespace that it made, and the socket that listens
    inside."""

    process: asyncio.subprocess.Process
    namespace: Namespace
    door: socket.socket


def homes() -> tuple[Path, ...]:
    """Where this account is at home: as its environment says, and as the system's accounts do. An
    account may have neither."""
    found = []
    with contextlib.suppress(KeyError):
        found.append(Path(pwd.getpwuid(os.getuid()).pw_dir))
    with contextlib.suppress(RuntimeError):
        found.append(Path.home())
    return tuple(dict.fromkeys(found))


def find_bubblewrap() -> str:
    """Where the system's bubblewrap is: root's, and nobody else's to change. Raises
    IsolationUnavailable."""
    for place in BUBBLEWRAP_PLACES:
        try:
            found = place.stat()
        except OSError:
            continue
        if found.st_uid != 0 or found.st_mode & _OTHERS_MAY_WRITE:
            raise IsolationUnavailable(
                f"{place} is not trusted: it must belong to root, and nobody else may write to it"
            )
        return str(place)
    raise IsolationUnavailable(
        "bubblewrap (the program bwrap) is not installed in "
        f"{' or '.join(str(place.parent) for place in BUBBLEWRAP_PLACES)}; "
        "install the package bubblewrap"
    )


async def start_isolated(view: View, order: Order, *, is_canary: bool = False) -> Isolated:
    """Start `order` inside, with this process's standard streams; the canary has none of them, and
    is heard by pipes. Raises IsolationUnavailable."""
    if elsewhere := streams_that_lead_elsewhere():
        raise IsolationUnavailable(
            f"{', '.join(elsewhere)}: by it a program could get out; give it a pipe, a file or "
            "/dev/null"
        )
    bubblewrap = find_bubblewrap()
    ours, theirs = socket.socketpair()
    with ours, _filter() as filter_fd, _pipe() as (told, telling):
        with theirs, _streams(is_canary) as (read_from, written_to):
            words = namespace_arguments(bubblewrap, _with_our_own(view, order), filter_fd)
            process = await asyncio.create_subprocess_exec(
                *(bubblewrap, "--info-fd", str(telling), *words[1:]),
                *(sys.executable, "-I", str(_INSIDE), str(theirs.fileno()), str(PROXY_PORT)),
                pass_fds=(filter_fd, theirs.fileno(), telling),
                stdin=read_from,
                stdout=written_to,
                stderr=written_to,
                env={},
                start_new_session=True,
            )
        try:
            namespace, door = await _begin(ours, told, order.to_bytes(view.places))
        except NotStarted as refused:
            await _give_up(process)
            raise IsolationUnavailable(str(refused)) from None
        except (OSError, ValueError) as error:
            said = await _give_up(process)
            missing = what_is_missing(said, Kernel.read())
            raise IsolationUnavailable(
                f"the program could not be isolated: {said or 'bubblewrap ended early'}"
                + (f"; what is missing: {missing}" if missing else "")
            ) from error
    return Isolated(process, namespace, door)


async def _begin(
    control: socket.socket, told: int, order: bytes
) -> tuple[Namespace, socket.socket]:
    """Take the door, and give the order once a crash stays inside. bubblewrap tells the first
    process before it runs, and that one waits for its order, so whatever it starts has its limits.
    Raises NotStarted, OSError or ValueError."""
    with contextlib.ExitStack() as undone:
        door = await asyncio.to_thread(_take_door, control)
        undone.callback(door.close)
        namespace = Namespace.hold(_first_pid(os.read(told, 4096)))
        undone.callback(namespace.let_go)
        if crash := keep_crashes_inside(namespace.first_pid):
            raise NotStarted(crash)
        await asyncio.to_thread(_hand_over, control, order)
        undone.pop_all()
    return namespace, door


def _with_our_own(view: View, order: Order) -> View:
    """What must be seen besides: the interpreter and its library, `inside.py`, the program."""
    own = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent, _INSIDE.parent}
    return replace(view, readable=(*view.readable, *sorted(own), order.executable))


def _take_door(control: socket.socket) -> socket.socket:
    """The listening socket from inside. Raises OSError when none comes."""
    control.settimeout(START_WITHIN_S)
    message, descriptors, _, _ = socket.recv_fds(control, len(inside.HELLO), 1)
    taken = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if message != inside.HELLO or len(taken) != 1:
        for door in taken:
            door.close()
        raise ConnectionError("no door")
    return taken[0]


def _hand_over(control: socket.socket, order: bytes) -> None:
    """Give the order, and wait until it is carried out. Raises NotStarted or OSError."""
    control.sendall(order)
    control.shutdown(socket.SHUT_WR)
    said = b""
    while data := control.recv(4096):
        said += data
    if said != inside.READY:
        raise NotStarted(said.decode()) if said else ConnectionError("the order was not taken")


def _first_pid(information: bytes) -> int:
    """The first process of the namespace, from what bubblewrap says on its information pipe."""
    pid = json.loads(information)["child-pid"]
    if not isinstance(pid, int) or pid < 2:
        raise ValueError("bubblewrap named no process")
    return pid


async def _give_up(process: asyncio.subprocess.Process) -> str:
    """End what was started; what it said, where that is not on the terminal already."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    _, said = await process.communicate()
    return said.decode(errors="replace").strip()[-_SAID_CHARACTERS:] if said else ""


@contextlib.contextmanager
def _filter() -> Iterator[int]:
    """The filter program in a file that lives in memory. Raises IsolationUnavailable."""
    try:
        program = filter_program(platform.machine())
    except UnknownArchitecture as unknown:
        raise IsolationUnavailable(str(unknown)) from unknown
    descriptor = os.memfd_create("palyra-filter", 0)
    try:
        os.write(descriptor, program)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _streams(is_canary: bool) -> Iterator[tuple[int | None, int | None]]:
    """Standard input, and where output and errors go, as for a subprocess."""
    if is_canary:
        yield asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        return
    with program_input() as read_from:
        yield read_from, None


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
