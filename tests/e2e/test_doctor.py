"""`doctor` on a real installation: healthy, and with one fault after another planted in it."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palyra_egress.cli.main import main as egress
from palyra_fleet.cli.main import main as fleet
from palyra_fleet.doctor import machine, state
from palyra_fleet.doctor.finding import is_healthy
from palyra_fleet.worker.isolation import start
from tests.e2e.doctor_faults import EGRESS_FAULTS, FLEET_FAULTS, Fault
from tests.e2e.place import Place

PROGRAMS = {"egress": egress, "fleet": fleet}
MAY_WARN = {"isolation", "disk", "descriptors"}
"""What depends on the machine that the tests run on."""


@contextmanager
def planted(fault: Fault, place: Place, spare: Path) -> Iterator[list[str]]:
    steps = fault.plant(place, spare)
    try:
        yield next(steps)
    finally:
        assert next(steps, None) is None


async def doctor(
    program: str, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, dict[str, Any]]:
    """The exit code and what was said, in this process."""
    capsys.readouterr()
    code = await asyncio.to_thread(PROGRAMS[program], ["doctor", "-o", "json", *options])
    return code, json.loads(capsys.readouterr().out)


def standings(said: dict[str, Any], *which: str) -> set[str]:
    return {row["check"] for row in said["findings"] if row["standing"] in which}


async def test_a_healthy_installation_has_no_fault_and_a_look_leaves_no_files(
    place: Place,
) -> None:
    running = await place.up()
    for program in (place.fleet, place.egress):
        done = await program("doctor", "-o", "json")
        said = json.loads(done.out)
        assert (done.code, said["healthy"]) == (0, True), done.out
        assert standings(said, "warn", "fail") <= MAY_WARN
    table = await place.egress("doctor")
    assert "0 fail" in table.err and "refuses" in table.out
    running.program.process.terminate()
    await running.program.ended()
    state = place.home / "fleet"
    before = sorted(path.name for path in state.iterdir())
    done = await place.fleet("doctor", "--offline")
    assert done.code == 0, done.out
    assert sorted(path.name for path in state.iterdir()) == before
    assert (await place.fleet("doctor", "--skip", "isolation")).code == 1


async def test_every_planted_fault_is_found_and_told_with_what_to_do(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await place.up()
    await place.run_to_its_end("api", sys.executable, "-c", "pass")  # so that there are events
    monkeypatch.setenv("PALYRA_HOME", str(place.home))
    missed: list[str] = []
    for number, fault in enumerate((*FLEET_FAULTS, *EGRESS_FAULTS)):
        spare = tmp_path / f"fault-{number}"
        spare.mkdir()
        monkeypatch.syspath_prepend(spare)
        quickly = ("--skip", "isolation") if fault.program == "fleet" else ()
        with planted(fault, place, spare) as options:
            code, said = await doctor(fault.program, capsys, *quickly, *options)
        rows = [row for row in said["findings"] if row["check"] == fault.check]
        found = [row for row in rows if row["standing"] == fault.standing and row["do"]]
        if code != 1 or said["healthy"] or not found:
            missed.append(f"{fault.name}: exit {code}, {rows}")
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(spare)])
    assert missed == []
    for program in PROGRAMS:
        code, said = await doctor(program, capsys)
        assert standings(said, "fail") == set(), said
        assert code == 0


async def test_a_machine_that_cannot_isolate_is_a_warning_and_with_strict_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "BUBBLEWRAP_PLACES", (tmp_path / "bwrap",))
    monkeypatch.setenv("PALYRA_HOME", str(tmp_path))
    _, said = await doctor("fleet", capsys, "--offline")
    assert "isolation" in standings(said, "warn")
    found = await asyncio.to_thread(lambda: tuple(machine.isolation(tmp_path)))
    assert not is_healthy(found, strict=True)
    assert is_healthy(found)


async def test_a_check_that_is_not_known_cannot_be_left_out(place: Place) -> None:
    done = await place.fleet("doctor", "--skip", "everything")
    assert (done.code, "expected one of" in done.err, done.out) == (2, True, "")


async def test_where_nothing_was_ever_started_the_doctor_says_so(place: Place) -> None:
    for program in (place.fleet, place.egress):
        done = await program("doctor", "-o", "json")
        assert done.code == 1
        said = json.loads(done.out)
        assert "home" in standings(said, "fail")
        assert "disk" not in standings(said, "fail")
        assert "Errno" not in done.out and "tampered" not in done.out and "evidence" not in done.out
        told = {row["check"]: (row["what"], row["do"]) for row in said["findings"]}
        for check in {"token", "store.fleet", "note", "ca.proxy", "audit"} & told.keys():
            what, remedy = told[check]
            assert "is not there" in what or "no state" in what or "does not exist" in what
            assert "start" in remedy and "remove the file" not in remedy


async def test_a_setting_that_nothing_reads_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PALYRA_HOME", str(tmp_path))
    monkeypatch.setenv("PALYRA_FLEET_SERVE_REATTEST_S", "60")
    monkeypatch.setenv("PALYRA_EGRESS_PROXY_SERVE_LISTEN", "127.0.0.1:1")
    for program, skipped in (("fleet", ("--skip", "isolation")), ("egress", ())):
        _, said = await doctor(program, capsys, "--offline", *skipped)
        assert "settings" in standings(said, "fail")


def test_a_state_that_lost_its_database_is_not_one_that_never_was(tmp_path: Path) -> None:
    assert state.is_untouched(tmp_path) and state.is_untouched(tmp_path / "none")
    (tmp_path / "fleet.lock").touch()
    assert state.is_untouched(tmp_path)
    (tmp_path / "fleet.marker").touch()
    assert not state.is_untouched(tmp_path)
