from collections.abc import AsyncIterator

import pytest

from tests.fakes.served_fleet import ServedFleet, served_fleet


@pytest.fixture
async def fleet() -> AsyncIterator[ServedFleet]:
    async with served_fleet() as served:
        yield served
