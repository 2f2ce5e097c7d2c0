"""Files carried into and out of runs of real programs, hostile ones among them."""

import argparse
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import ArtifactModel
from palyra_fleet.worker.artifact_arguments import add_artifact_arguments, carriage_of
from palyra_fleet.worker.artifacts import ArtifactRefused, Carriage, Carrier
from palyra_fleet.worker.held_run import OUTPUT_NOT_CARRIED
from tests.fakes.worker_bench import Bench


def named(path: str, content: bytes) -> ArtifactModel:
    return ArtifactModel(
        path=path, digest_sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("workspace", "outside", "source"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def workspace_fd(place: Path) -> Iterator[int]:
    descriptor = os.open(place / "workspace", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def loaded(place: Path, workspace_fd: int, *outputs: str, most: int = 100) -> Carrier:
    (place / "source" / "file").write_bytes(b"rows")
    inputs = (("data/rows", place / "source" / "file"),)
    return Carrier.load(Carriage(inputs, outputs, place / "outside", most), workspace_fd)


def test_an_input_is_copied_in_and_named_with_its_digest(place: Path, workspace_fd: int) -> None:
    carrier = loaded(place, workspace_fd, "report")
    (place / "source" / "file").write_bytes(b"changed later")
    copied = place / "workspace" / "in" / "data" / "rows"
    assert copied.read_bytes() == b"rows"
    assert copied.stat().st_mode & 0o777 == 0o400
    assert carrier.transport().inputs == (named("data/rows", b"rows"),)
    assert carrier.used() == carrier.inputs
    carrier.close()


@pytest.mark.parametrize("change", ["rewritten", "longer", "gone", "link", "hard link", "fifo"])
def test_an_input_that_is_another_before_the_start_is_refused(
    place: Path, workspace_fd: int, change: str
) -> None:
    carrier = loaded(place, workspace_fd)
    copied = place / "workspace" / "in" / "data" / "rows"
    other = place / "outside" / "other"
    other.write_bytes(b"rows")
    copied.unlink()
    match change:
        case "rewritten":
            copied.write_bytes(b"Rows")
        case "longer":
            copied.write_bytes(b"rows and more")
        case "link":
            copied.symlink_to(other)
        case "hard link":
            copied.hardlink_to(other)
        case "fifo":
            os.mkfifo(copied)
    with pytest.raises(ArtifactRefused, match="data/rows"):
        carrier.used()


@pytest.mark.parametrize("what", ["nothing", "directory"])
def test_an_input_that_is_no_file_is_told(place: Path, workspace_fd: int, what: str) -> None:
    source = place / "source" if what == "directory" else place / "none"
    with pytest.raises(ArtifactRefused, match="is not carried"):
        Carrier.load(Carriage((("a", source),)), workspace_fd)


def test_a_workspace_that_takes_no_inputs_is_told(place: Path, workspace_fd: int) -> None:
    (place / "workspace" / "in").write_text("in the way")
    with pytest.raises(ArtifactRefused, match="in is not carried: File exists"):
        Carrier.load(Carriage(), workspace_fd)


def test_an_output_comes_out_whole_with_its_digest(place: Path, workspace_fd: int) -> None:
    carrier = loaded(place, workspace_fd, "log/all", "report", "absent")
    out = place / "workspace" / "out"
    (out / "log").mkdir()
    (out / "log" / "all").write_bytes(b"lines")
    (out / "report").write_bytes(b"{}")
    (out / "loot").write_bytes(b"not announced")
    (place / "outside" / "report").write_bytes(b"an older one")
    assert carrier.collect() == (named("log/all", b"lines"), named("report", b"{}"))
    carrier.close()
    found = {
        path.name: path.read_bytes() for path in (place / "outside").rglob("*") if path.is_file()
    }
    assert found == {"all": b"lines", "report": b"{}"}
    assert carrier.refused == ["absent is not carried: No such file or directory"]


@pytest.mark.parametrize(
    "trick",
    ["link", "directory link", "hard link", "fifo", "directory", "socket", "too large", "swapped"],
)
def test_what_a_hostile_program_leaves_does_not_come_out(
    place: Path, workspace_fd: int, trick: str
) -> None:
    secret = place / "source" / "secret"
    secret.write_bytes(b"of somebody else")
    carrier = loaded(place, workspace_fd, "log/all")
    log = place / "workspace" / "out" / "log"
    if trick == "swapped":  # the whole of `out` leads elsewhere
        (place / "source" / "log").mkdir()
        (place / "source" / "log" / "all").write_bytes(b"of somebody else")
        log.parent.rmdir()
        log.parent.symlink_to(place / "source")
    elif trick == "directory link":
        log.symlink_to(place / "source")
        secret.rename(place / "source" / "all")
    else:
        log.mkdir()
    match trick:
        case "link":
            (log / "all").symlink_to(secret)
        case "hard link":
            (log / "all").hardlink_to(secret)
        case "fifo":
            os.mkfifo(log / "all")
        case "directory":
            (log / "all").mkdir()
        case "socket":
            os.mknod(log / "all", 0o140600)
        case "too large":
            (log / "all").write_bytes(b"x" * 101)
    assert carrier.collect() == ()
    carrier.close()
    assert len(carrier.refused) == 1
    assert not [path for path in (place / "outside").rglob("*") if not path.is_dir()]


def test_all_outputs_together_are_bounded(place: Path, workspace_fd: int) -> None:
    carrier = loaded(place, workspace_fd, "a", "b", "c", most=10)
    for name, size in (("a", 6), ("b", 5), ("c", 4)):
        (place / "workspace" / "out" / name).write_bytes(b"x" * size)
    assert [artifact.path for artifact in carrier.collect()] == ["a", "c"]
    carrier.close()
    assert carrier.refused == ["b is not carried: it is larger than may be carried"]


def test_nothing_outside_is_written_through_a_link(place: Path, workspace_fd: int) -> None:
    """The destination is a folder that the program could write to, and it left links there."""
    precious = place / "source" / "precious"
    precious.write_bytes(b"kept")
    (place / "outside" / "log").symlink_to(place / "source")
    (place / "outside" / "report").symlink_to(precious)
    carrier = loaded(place, workspace_fd, "log/precious", "report")
    (place / "workspace" / "out" / "log").mkdir()
    for name in ("log/precious", "report"):
        (place / "workspace" / "out" / name).write_bytes(b"hostile")
    assert [artifact.path for artifact in carrier.collect()] == ["report"]
    carrier.close()
    assert precious.read_bytes() == b"kept"
    assert (place / "outside" / "report").read_bytes() == b"hostile", "the link was replaced"
    assert not (place / "outside" / "report").is_symlink()


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture
def carried(bench: Bench) -> Bench:
    """A run with an input, and an output that comes to `results`."""
    (bench.home / "rows").write_bytes(b"rows")
    (bench.home / "results").mkdir()
    carriage = Carriage((("rows", bench.home / "rows"),), ("report",), bench.home / "results", 100)
    bench.settings = replace(bench.settings, carriage=carriage)
    return bench


async def test_a_program_gets_its_input_and_its_output_is_reported_with_a_digest(
    carried: Bench,
) -> None:
    command = ["/bin/sh", "-c", 'tr a-z A-Z < "$PALYRA_INPUTS/rows" > "$PALYRA_OUTPUTS/report"']
    assert await carried.run(command) == 0
    (report,) = carried.worker.cleanups
    assert report.inputs == (named("rows", b"rows"),)
    assert report.outputs == (named("report", b"ROWS"),)
    assert (carried.home / "results" / "report").read_bytes() == b"ROWS"
    assert carried.said == []


async def test_an_output_that_is_a_link_is_told_and_the_run_does_not_end_with_zero(
    carried: Bench,
) -> None:
    command = ["/bin/sh", "-c", 'ln -s /etc/passwd "$PALYRA_OUTPUTS/report"']
    assert await carried.run(command) == OUTPUT_NOT_CARRIED
    (report,) = carried.worker.cleanups
    assert report.outputs == ()
    assert carried.said == ["output report is not carried: it is a link"]
    assert list((carried.home / "results").iterdir()) == []


async def test_the_programs_own_failure_is_the_exit_code(carried: Bench) -> None:
    assert await carried.run(["/bin/sh", "-c", "exit 3"]) == 3
    assert carried.said == ["output report is not carried: No such file or directory"]


async def test_nothing_comes_out_of_a_run_that_was_stopped(carried: Bench) -> None:

    script = """
open(os.environ["PALYRA_OUTPUTS"] + "/report", "w").write("loot")
say("up")
wait()
"""
    running = spawn(carried.run(carried.program(script)), "run")
    await carried.heard()
    await carried.fleet.service.quarantine("operator", carried.worker_id, "no")
    assert await running == 128 + 15
    assert list((carried.home / "results").iterdir()) == []


async def test_an_input_that_is_not_there_is_told_before_a_lease_is_asked_for(
    carried: Bench,
) -> None:
    (carried.home / "rows").unlink()
    with pytest.raises(ArtifactRefused, match="rows is not carried: No such file"):
        await carried.run(["/bin/true"])
    assert carried.worker_id not in carried.fleet.service.known


@pytest.mark.parametrize(
    "flag", ["--carry-in=.hidden", "--carry-in=a/../b=file", "--carry-out=/etc/x"]
)
def test_names_that_are_not_plain_are_refused_by_the_command(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:

    parser = argparse.ArgumentParser()
    add_artifact_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([flag])
    assert "expected a relative path of plain names" in capsys.readouterr().err
    asked = parser.parse_args(["--carry-in=a=b/c", "--carry-in=b/c", "--carry-out=r"])
    assert carriage_of(asked).inputs == (("a", Path("b/c")), ("c", Path("b/c")))
