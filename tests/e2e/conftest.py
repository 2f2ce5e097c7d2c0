"""Fixtures of the end-to-end tests: everything in this folder starts real programs."""

import importlib.util
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from tests.e2e.apart import Apart, set_up_apart
from tests.e2e.place import Place
from tests.e2e.programs import programs
from tests.e2e.upstreams import GIT, HOSTS, REPOSITORY, upstreams

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """An installation that was never started, with its upstreams running."""
    ca = UpstreamCa.create(tmp_path / "upstream")
    git_root = tmp_path / "git"
    async with (
        upstreams(ca.server_context(*HOSTS), git_root) as served,
        programs() as registry,
    ):
        yield Place(tmp_path, registry, served, ca)


@pytest.fixture
async def apart(place: Place) -> Apart:
    """Fleet and proxy as two running programs."""
    return await set_up_apart(place)


def needed(program: str) -> str:
    """Where a client is; skips the test where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed, so this client was not tried")
    return found


@pytest.fixture
def curl() -> str:
    return needed("curl")


@pytest.fixture
def git() -> str:
    return needed("git")


@pytest.fixture
def node() -> str:
    return needed("node")


@pytest.fixture
async def repository(place: Place, git: str) -> str:
    """The URL of a repository with one commit."""
    return await made_repository(place, git)


async def made_repository(place: Place, git: str) -> str:
    """Makes one with one commit at the git server; its URL."""
    work = place.directory / "work"
    work.mkdir()
    (work / "hello.txt").write_text("hello from git\n")
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_NAME": "Test" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "test@git.example" for who in ("AUTHOR", "COMMITTER")},
    }
    for command in (
        ("init", "-q", "-b", "main"),
        ("add", "hello.txt"),
        ("commit", "-q", "-m", "One file"),
        ("clone", "-q", "--bare", ".", f"{place.upstreams.git_root}{REPOSITORY}"),
    ):
        done = await place.programs.finished(git, *command, environment=environment, directory=work)
        assert done.code == 0, done.err
    return place.upstreams.url(GIT, REPOSITORY)


@pytest.fixture
def pip() -> tuple[str, ...]:
    return pip_download()


def pip_download() -> tuple[str, ...]:
    """The command that downloads a package; skips where there is no pip."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed here, so this client was not tried")
    return (sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--retries=1")
