"""One run's isolation: what the program sees, the proof before it starts, and its start.

The program finds the proxy on its own loopback, so its environment names that address, and the CA
files as copies in its workspace. `Isolation.hidden` are directories of the installation: whatever
lies there is not for workers; a single file may be hidden as well.
"""

import os
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from palyra_fleet.worker.isolation.door import Door
from palyra_fleet.worker.isolation.namespace import PROXY_PORT, Place, View
from palyra_fleet.worker.isolation.proof import prove_isolation
from palyra_fleet.worker.isolation.start import (
    IsolationUnavailable,
    Order,
    homes,
    start_isolated,
)
from palyra_fleet.worker.launcher import Artifact
from palyra_fleet.worker.process_group import LEASE_MARK, ProcessGroup

_PACKAGES: Final = Path(__file__).resolve().parents[3]
THE_SYSTEMS: Final = tuple(
    Path("/", name)
    for name in (
        *("bin", "boot", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "var/spool"),
        *("usr/bin", "usr/lib", "usr/libexec", "usr/sbin", "usr/share"),
        *("usr/local/bin", "usr/local/etc", "usr/local/lib", "usr/local/sbin"),
    )
)
INSIDE_PROXY_ADDRESS: Final = f"127.0.0.1:{PROXY_PORT}"


@dataclass(frozen=True, slots=True)
class Isolation:
    """What an operator asks for: isolation, with these directories and files hidden."""

    hidden: tuple[Path, ...] = ()


class Sandbox:
    """Proven once, then started once; `close` ends the way out."""

    def __init__(self, view: View, proxy_address: str) -> None:
        self._view = view
        self._proxy_address = proxy_address
        self._door: Door | None = None

    @classmethod
    async def prove(
        cls,
        isolation: Isolation,
        workspace: Path,
        working_directory: Path,
        proxy_address: str,
        inputs: Path | None = None,
        only_writable: Path | None = None,
    ) -> "Sandbox":
        """A sandbox that the canary could not leave, and in which it could not change the inputs;
        with `only_writable`, a directory of the workspace, nothing of the machine at all: there is
        an empty place in memory instead of it. Raises IsolationUnavailable."""
        view = make_view(isolation.hidden, workspace, working_directory, homes(), own_code())
        places = tuple(map(place_at, dict.fromkeys((workspace, view.working_directory))))
        view = replace(view, places=places)
        if inputs is not None:
            view = replace(view, protected=(inputs,))
        if only_writable is not None:
            view = read_only_view(view, workspace, only_writable)
        await prove_isolation(view)
        return cls(view, proxy_address)

    async def start(
        self, artifact: Artifact, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> ProcessGroup:
        """Start the measured program inside. Raises IsolationUnavailable."""
        order = Order(artifact.executable, (artifact.invoked_as, *arguments), environment)
        started = await start_isolated(self._view, order)
        self._door = Door(started.door, self._proxy_address)
        return ProcessGroup(started.process, environment[LEASE_MARK], started.namespace)

    async def close(self) -> None:
        if self._door is not None:
            await self._door.close()


def own_code() -> tuple[Path, ...]:
    """Where the code lies that runs outside: this package, and what its interpreter loads."""
    paths = sysconfig.get_paths()
    loaded = {Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (_PACKAGES, Path(paths["scripts"]), *sorted(loaded))


def make_view(
    hidden: Sequence[Path],
    workspace: Path,
    working_directory: Path,
    homes: Sequence[Path],
    code: Sequence[Path] = (),
) -> View:
    """What the program sees. It may write to its workspace and to its working directory, but not
    to a home directory, to `code`, to a system's place, or to what is above one: what is put there
    is run outside, later. Pure but for looking at symbolic links. Raises IsolationUnavailable."""
    place = working_directory.resolve()
    covered = tuple(path.resolve() for path in hidden)
    for path in covered:
        if place.is_relative_to(path):
            raise IsolationUnavailable(f"{place} is hidden from workers; start from elsewhere")
        if workspace.is_relative_to(path):
            raise IsolationUnavailable(
                f"{workspace}, the run's own workspace, would be hidden from it with {path}; set "
                "TMPDIR, where workspaces are made, to a directory elsewhere"
            )
    runs_outside = any(
        one.is_relative_to(place) or place.is_relative_to(one)
        for one in (path.resolve() for path in code)
    )
    is_home = any(one.resolve().is_relative_to(place) for one in homes)
    is_kept = runs_outside or is_home or _is_the_systems(place)
    writable = (workspace,) if is_kept else (workspace, place)
    readable = () if place in writable else (place,)
    outermost = [path for path in dict.fromkeys(covered) if not set(path.parents) & set(covered)]
    directories = tuple(path for path in outermost if path.is_dir())
    files = tuple(path for path in outermost if path.exists() and path not in directories)
    return View(writable, readable, directories, place, unreadable=files)


def _is_the_systems(place: Path) -> bool:
    """In, or above, a place whose files root's programs or the kernel act on."""
    return any(place.is_relative_to(one) or one.is_relative_to(place) for one in THE_SYSTEMS)


def place_at(path: Path) -> Place:
    """Which directory this path leads to now, without any link. Raises IsolationUnavailable: what
    may be done there was decided by the path, and another program may be swapping what it names."""
    try:
        held = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise IsolationUnavailable(f"{path}: {error.strerror}") from error
    try:
        if Path(f"/proc/self/fd/{held}").readlink() != path:
            raise IsolationUnavailable(f"{path} leads elsewhere")
        found = os.fstat(held)
    finally:
        os.close(held)
    return Place(path, (found.st_dev, found.st_ino))


def read_only_view(view: View, workspace: Path, temporary: Path) -> View:
    """The same view in which nothing of the machine's can be written: what was writable is only
    shown, and `temporary` is a place in memory that ends with the namespace. Pure."""
    return replace(
        view,
        writable=(),
        readable=(*view.readable, *(path for path in view.writable if path != workspace)),
        protected=(workspace, *view.protected),
        hidden=(*view.hidden, temporary),
    )


def copy_into(workspace: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """Copies of certificate files where the program sees them. Raises OSError."""
    directory = workspace / "ca"
    directory.mkdir(mode=0o700, exist_ok=True)
    return tuple(Path(shutil.copyfile(file, directory / file.name)) for file in files)
