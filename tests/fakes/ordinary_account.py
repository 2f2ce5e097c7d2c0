"""Programs of an ordinary account, also where the tests run as root.

Not root: this account itself. Root: a number that no file of accounts knows, without a name, group
or capability; in a mount namespace of its own, where our interpreter and this repository can be
read although they may lie in root's home. Nothing of that is seen outside, or stays.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

UID = 64738
_REPOSITORY = Path(__file__).resolve().parents[2]
_SHOW = """
set -e
for shown in "$@"; do
  [ "$shown" = -- ] && break
  staged=$(mktemp -d)
  mount --bind "$shown" "$staged"
  stages="$stages $staged"
done
for closed in $CLOSED; do mount -t tmpfs -o mode=0755 none "$closed"; done
for staged in $stages; do
  mkdir -p "$1"
  mount --move "$staged" "$1"
  rmdir "$staged"
  shift
done
[ "$1" = -- ] && shift
unset CLOSED
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class OrdinaryAccount:
    """`prefix` stands before a command; `directory` is its own, and writable."""

    prefix: tuple[str, ...]
    directory: Path
    uid: int

    def environment(self) -> dict[str, str]:
        """As little as a service has: no name of a user."""
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.directory),
            "TMPDIR": str(self.directory),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def owns(self, *paths: Path) -> None:
        if os.getuid() != self.uid:
            for path in paths:
                os.chown(path, self.uid, self.uid)


@contextmanager
def ordinary_account() -> Iterator[OrdinaryAccount]:
    """Skips the test where root may not make such an account's programs."""
    directory = Path(tempfile.mkdtemp(prefix="palyra-account-"))
    try:
        if os.getuid() != 0:
            yield OrdinaryAccount((), directory, os.getuid())
            return
        account = OrdinaryAccount(_as_uid(), directory, UID)
        account.owns(directory)
        tried = (*account.prefix, sys.executable, "-c", "import palyra_egress, tests")
        done = subprocess.run(
            tried, cwd=_REPOSITORY, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            pytest.skip(f"no program of another account can be run here: {done.stderr[-200:]}")
        yield account
    finally:
        shutil.rmtree(directory)


def _as_uid() -> tuple[str, ...]:
    """Words before a command, for `UID` without any privilege."""
    needed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), _REPOSITORY}
    closed = {path: top for path in needed if (top := _first_closed(path)) is not None}
    return (
        *("env", f"CLOSED={' '.join(sorted({str(top) for top in closed.values()}))}"),
        *("unshare", "--mount", "--propagation", "private", "--"),
        *("sh", "-c", _SHOW, "sh", *map(str, sorted(closed)), "--"),
        *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
        *("--bounding-set=-all", "--inh-caps=-all", "--"),
    )


def _first_closed(path: Path) -> Path | None:
    """The first directory on the way to `path` that others may not go through."""
    way = reversed((path, *path.parents))
    return next((one for one in way if not one.stat().st_mode & 0o001), None)
