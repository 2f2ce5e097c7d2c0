"""A fresh identity for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.identity_world import IdentityWorld, identity_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[IdentityWorld]:
    async with identity_world(tmp_path / "state") as fresh:
        yield fresh
