"""Where a kernel forbids isolation, the run is refused and what is missing is named exactly."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from palyra_fleet.worker.isolation.missing import Kernel, what_is_missing
from tests.fakes.ordinary_account import OrdinaryAccount
from tests.fleet.worker.isolation import no_namespaces
from tests.fleet.worker.isolation.cell import UNAVAILABLE, Cell

NO_PERMISSION = "bwrap: No permissions to create new namespace, likely because the kernel …"
NO_MAP = "bwrap: setting up uid map: Permission denied"
NO_ROOM = "bwrap: Creating new namespace failed: nesting depth or … exceeded (ENOSPC)"
NO_PROC = "bwrap: Can't mount proc on /newroot/proc: Operation not permitted"


@pytest.mark.parametrize(
    ("said", "kernel", "missing"),
    [
        (NO_ROOM, Kernel(limits={"user": 0}), "user.max_user_namespaces is 0"),
        (NO_ROOM, Kernel(limits={"user": 1}), "is 1 and must be 2 or more"),
        (NO_ROOM, Kernel(limits={"user": 9, "net": 0}), "user.max_net_namespaces is 0"),
        (NO_ROOM, Kernel(limits={"user": 9}), "in use"),
        (NO_PROC, Kernel(), "a /proc that may be mounted anew"),
        (NO_PROC, Kernel(covered=("/proc/kcore",)), "covered: /proc/kcore"),
        (NO_PERMISSION, Kernel(has_user_namespaces=False), "CONFIG_USER_NS"),
        (NO_PERMISSION, Kernel(unprivileged_userns_clone=0), "unprivileged_userns_clone is 0"),
        (NO_PERMISSION, Kernel(unprivileged_userns_clone=1), "a security module or a chroot"),
        (NO_PERMISSION, Kernel(unprivileged_userns_clone=0, is_root=True), "a security module"),
        (NO_MAP, Kernel(apparmor_restricts=1), "AppArmor profile"),
        (NO_MAP, Kernel(apparmor_restricts=0), "a security module"),
        (NO_PERMISSION, Kernel(seccomp=2), "a seccomp filter"),
        (NO_PERMISSION, Kernel(), "a security module or a chroot"),
        ("bwrap: Unknown option --disable-userns", Kernel(), "bubblewrap 0.8 or newer"),
        ("bwrap: Can't find source path /x", Kernel(apparmor_restricts=1, seccomp=2), ""),
        ("", Kernel(limits={"user": 0}), ""),
    ],
)
def test_the_setting_that_forbids_it_is_named(said: str, kernel: Kernel, missing: str) -> None:
    found = what_is_missing(said, kernel)
    assert missing in found and bool(found) == bool(missing)


def test_the_kernels_settings_are_read_where_they_stand(tmp_path: Path) -> None:
    files = {
        "self/ns/user": "",
        "self/status": "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        "self/mountinfo": "1 2 0:2 / /proc rw - proc - rw\n3 1 0:9 / /proc/acpi ro - tmpfs - ro\n",
        "sys/user/max_user_namespaces": "7\n",
        "sys/kernel/unprivileged_userns_clone": "0\n",
        "sys/kernel/apparmor_restrict_unprivileged_userns": "1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert Kernel.read(tmp_path) == Kernel(
        True, {"user": 7}, 0, 1, 2, os.geteuid() == 0, ("/proc/acpi",)
    )
    assert Kernel.read(tmp_path / "none") == Kernel(False, is_root=os.geteuid() == 0)


LIMITED = ("unshare", "--user", "--map-root-user", "sh", "-c")
COVERED = 'mount -t tmpfs none /proc/tty && exec "$@"'


def refused(cell: Cell, *before: str) -> str:
    """What is said of a program that was not run."""
    code, out, errors = cell.run("/bin/echo", "ran", proven=True, before=before)
    assert (code, out) == (UNAVAILABLE, ""), errors
    return errors


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
class TestReal:
    """The kernel of this machine, told to forbid it in namespaces that are the test's own."""

    def test_without_anything_forbidden_it_runs(self, ordinary: Cell) -> None:
        assert ordinary.run("/bin/echo", "ran", proven=True) == (0, "ran\n", "")

    @pytest.mark.parametrize("kind", ["user", "net"])
    def test_a_limit_of_namespaces(self, here: Cell, kind: str) -> None:
        if os.getuid() != 0:
            pytest.skip(
                "root alone keeps its number in a user namespace, and so does bwrap's owner"
            )
        setting = f"max_{kind}_namespaces"
        script = f'echo 0 > /proc/sys/user/{setting} && exec "$@"'
        if subprocess.run([*LIMITED, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no user namespace can be made here")
        assert f"what is missing: user.{setting} is 0" in refused(here, *LIMITED, script, "sh")

    def test_a_filter_of_system_calls(self, ordinary: Cell) -> None:
        said = refused(ordinary, sys.executable, no_namespaces.__file__)
        assert "what is missing: a seccomp filter" in said

    def test_a_proc_with_covered_parts(self, ordinary: Cell) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can cover a part of /proc")
        words = ("unshare", "--mount", "--propagation", "private", "sh", "-c", COVERED, "sh")
        account = ordinary.account
        covered = OrdinaryAccount((*words, *account.prefix), account.directory, account.uid)
        cell = Cell(covered, ordinary.workspace, ordinary.project, ordinary.hidden)
        said = refused(cell)
        assert "what is missing: a /proc that may be mounted anew" in said
        assert "(covered: /proc/tty)" in said
