"""Directories are held by what they are: nobody swaps one between the decision and the run."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.worker.isolation.namespace import EMPTIED, View, namespace_arguments
from palyra_fleet.worker.isolation.sandbox import make_view, place_at
from palyra_fleet.worker.isolation.start import IsolationUnavailable, Order, start_isolated

needs_namespaces = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed, so isolation was not tried"
)


async def run_in(view: View, *command: str) -> int:
    started = await start_isolated(
        view, Order(Path(command[0]), command, {"PATH": "/usr/bin:/bin"})
    )
    code = await started.process.wait()
    started.namespace.let_go()
    started.door.close()
    return code


@pytest.mark.parametrize(
    ("covered", "pinned"),
    [
        ("/w/state", ()),
        ("/w/a/state", ("/w/a",)),
        ("/w/a/b/state", ("/w/a", "/w/a/b")),
        ("/elsewhere/a/state", ()),
        ("/w", ()),
    ],
)
@pytest.mark.parametrize("kind", ["hidden", "unreadable", "protected"])
def test_what_leads_to_a_covered_place_is_pinned(
    covered: str, pinned: tuple[str, ...], kind: str
) -> None:
    view = replace(View((Path("/w"),)), **{kind: (Path(covered),)})
    assert view.pinned == tuple(map(Path, pinned))
    words = namespace_arguments("bwrap", view, 7)
    order = [words.index(word) for word in ("/w", *pinned, covered)]
    assert order == sorted(order)


@needs_namespaces
async def test_a_program_that_is_a_link_in_what_is_shown_of_tmp_runs() -> None:
    """As the interpreter of a clone in /tmp is."""
    with tempfile.TemporaryDirectory(prefix="a clone ", dir=EMPTIED[1]) as name:
        program = Path(name) / "sh"
        program.symlink_to("/bin/sh")
        view = View((), readable=(Path(name),))
        assert await run_in(view, str(program), "-c", "true") == 0


@needs_namespaces
async def test_a_program_puts_no_decoy_where_hidden_state_lies(tmp_path: Path) -> None:
    """A name above the hidden directory could be moved away, with all that is hidden."""
    state = tmp_path / "project" / "var" / "palyra"
    state.mkdir(parents=True)
    (state / "key").write_text("secret")
    project = tmp_path / "project"
    view = make_view((state,), tmp_path / "w", project, (Path("/h"),))
    (tmp_path / "w").mkdir()
    tries = "mv var gone || mv var/palyra var/gone || rm -rf var; test ! -e gone && : > var/new"
    assert await run_in(view, "/bin/sh", "-c", tries) == 0
    assert (state / "key").read_text() == "secret"
    assert sorted(path.name for path in (project / "var").iterdir()) == ["new", "palyra"]
    # the attempt succeeds where nothing is pinned: the test can fail
    unpinned = replace(view, hidden=())
    assert await run_in(unpinned, "/bin/sh", "-c", "mv var gone") == 0
    assert (project / "gone" / "palyra" / "key").exists()


@needs_namespaces
@pytest.mark.parametrize("swapped", ["link", "directory", "nothing"])
async def test_a_directory_that_was_swapped_is_not_given_to_the_program(
    tmp_path: Path, swapped: str
) -> None:
    """Another run, whose directory is above this one, has put a link to somebody's home there."""
    workspace, project, home = (tmp_path / name for name in ("w", "project", "home"))
    for path in (workspace, project, home):
        path.mkdir()
    view = make_view((), workspace, project, (home,))
    view = replace(view, places=(place_at(workspace), place_at(project)))
    assert await run_in(view, "/bin/sh", "-c", "pwd") == 0
    project.rename(tmp_path / "moved")
    if swapped == "link":
        project.symlink_to(home)
    elif swapped == "directory":
        project.mkdir()
    with pytest.raises(IsolationUnavailable, match=r"took the place of|could not be isolated"):
        await run_in(view, "/bin/sh", "-c", f"touch {project}/written")
    assert list(home.iterdir()) == []
    assert not (project / "written").exists()


def test_a_place_is_no_link_and_has_none_above_it(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = os.stat(tmp_path / "real")  # noqa: PTH116 (two numbers)
    assert place_at(tmp_path / "real").identity == (found.st_dev, found.st_ino)
    with pytest.raises(IsolationUnavailable, match=r"Not a directory|Too many levels"):
        place_at(tmp_path / "link")
    with pytest.raises(IsolationUnavailable, match="leads elsewhere"):
        place_at(tmp_path / "link" / "inner")
    with pytest.raises(IsolationUnavailable, match="No such file"):
        place_at(tmp_path / "none")
