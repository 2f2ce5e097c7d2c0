"""The locks: every package by hash, no registry named, mitmproxy at the version we tested."""

import re
import tomllib
from pathlib import Path

import pytest

from palyra_egress.proxy.tested_mitmproxy import TESTED_MITMPROXY

LOCKS = ("requirements/runtime.lock", "requirements/opentelemetry.lock", "requirements/dev.lock")
REQUIREMENT = re.compile(r"(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>[^ ;]+)")


def locked_versions(lock: Path) -> dict[str, str]:
    matches = (REQUIREMENT.match(line) for line in lock.read_text().splitlines())
    return {match["name"]: match["version"] for match in matches if match}


def requirement_blocks(lock: Path) -> list[str]:
    """Each requirement with its continuation lines, comments left out."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    return re.findall(r"^\S.*(?:\n[ \t]+.*)*", "\n".join(lines), re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_is_pinned_and_hashed(repository: Path, lock: str) -> None:
    blocks = requirement_blocks(repository / lock)
    assert len(blocks) > 20
    loose = [
        block.splitlines()[0]
        for block in blocks
        if not REQUIREMENT.match(block) or "--hash=sha256:" not in block
    ]
    assert loose == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_registry_and_no_location(repository: Path, lock: str) -> None:
    text = (repository / lock).read_text()
    found = re.findall(r"\w+://\S+|--(?:index-url|extra-index-url|find-links)\b.*| @ .*", text)
    assert found == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_says_how_it_was_made(repository: Path, lock: str) -> None:
    assert "#    make lock\n" in (repository / lock).read_text()[:200]


def test_the_locks_agree_and_what_the_program_needs_is_in_each(repository: Path) -> None:
    runtime, extra, dev = (locked_versions(repository / lock) for lock in LOCKS)
    assert {name: extra.get(name) for name in runtime} == runtime
    assert {name: dev.get(name) for name in extra} == extra


def test_the_program_installs_without_the_extra(repository: Path) -> None:
    runtime, extra, _ = (locked_versions(repository / lock) for lock in LOCKS)
    assert {"opentelemetry-sdk", "requests"} <= extra.keys() - runtime.keys()
    assert not [name for name in runtime if name.startswith("opentelemetry")]


def test_the_development_lock_was_made_from_what_is_asked_for(repository: Path) -> None:
    asked_text = (repository / "requirements" / "dev.in").read_text()
    asked = set(re.findall(r"^[A-Za-z0-9][A-Za-z0-9._-]*", asked_text, re.MULTILINE))
    lock = (repository / "requirements" / "dev.lock").read_text()
    locked = {
        entry.partition("==")[0]
        for entry in re.split(r"^(?=\S)", lock, flags=re.MULTILINE)
        if "-r requirements/dev.in" in entry
    }
    assert locked == {name.lower() for name in asked}


@pytest.mark.parametrize("lock", LOCKS)
def test_mitmproxy_is_locked_to_a_tested_version(repository: Path, lock: str) -> None:
    assert re.fullmatch(r"12\.2\.\d+", locked_versions(repository / lock)["mitmproxy"])


def test_the_project_accepts_no_other_minor_version_of_mitmproxy(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    (wanted,) = [entry for entry in project["dependencies"] if entry.startswith("mitmproxy")]
    assert "<12.3" in wanted
    assert ">=12.2" in wanted


def test_there_is_no_second_lock_format(repository: Path, tracked_files: tuple[Path, ...]) -> None:
    others = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "pylock.toml"}
    assert [path.name for path in tracked_files if path.name in others] == []
    assert not (repository / "uv.lock").exists()


def test_the_locked_mitmproxy_is_one_that_was_tested(repository: Path) -> None:
    lock = (repository / "requirements" / "runtime.lock").read_text(encoding="utf-8")
    locked = re.search(r"^mitmproxy==(?P<version>\S+)", lock, re.MULTILINE)
    assert locked is not None and locked["version"] in TESTED_MITMPROXY
