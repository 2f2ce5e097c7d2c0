from collections.abc import AsyncIterator

import pytest

from tests.fakes.worker_bench import Bench
from tests.fakes.worker_bench import bench as make_bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with make_bench() as made:
        yield made
