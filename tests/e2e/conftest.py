"""Fixtures of the end-to-end tests: everything in this folder starts real programs."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from tests.e2e.apart import Apart, set_up_apart
from tests.e2e.place import Place
from tests.e2e.programs import programs
from tests.e2e.upstreams import HOSTS, upstreams

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


def _needed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed, so this client was not tried")
    return found


@pytest.fixture
def curl() -> str:
    return _needed("curl")


@pytest.fixture
def git() -> str:
    return _needed("git")


@pytest.fixture
def node() -> str:
    return _needed("node")
