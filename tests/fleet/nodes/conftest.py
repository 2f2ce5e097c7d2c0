"""A fleet that serves nodes, for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.ledger_world import ulid
from tests.fakes.node_world import Node, NodeWorld, node_world
from tests.fakes.pairing_device import PairingDevice


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[NodeWorld]:
    async with node_world(tmp_path / "fleet") as fresh:
        yield fresh


@pytest.fixture
async def node(world: NodeWorld) -> Node:
    return await world.pair(PairingDevice(ulid(1)))


@pytest.fixture
async def other(world: NodeWorld) -> Node:
    return await world.pair(PairingDevice(ulid(2)))
