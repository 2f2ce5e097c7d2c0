"""The example of docs/worker-sdk.md, run as it stands there against the real fleet."""

import re
from pathlib import Path

import pytest
from ulid import ULID

from palyra_fleet.client import FleetProblem
from palyra_fleet.wire.keys import SigningKey
from tests.fakes.real_fleet import enrolment, real_fleet
from tests.fakes.worker_bench import GRANT, RUN_ID

PAGE = Path(__file__).resolve().parents[3] / "docs" / "worker-sdk.md"


async def test_the_example_of_the_page_attests_works_and_completes(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    example: dict[str, object] = {}
    exec(compile(found[1], str(PAGE), "exec"), example)
    work = example["work"]
    assert callable(work)
    key = tmp_path / "launcher.pem"
    async with real_fleet() as fleet:
        await fleet.accept("sh")
        await fleet.operator.create_grant(GRANT)
        launcher = SigningKey.load_or_create(key)
        await fleet.operator.enrol_launcher(enrolment("launcher-2", launcher))
        who = str(ULID())
        place = (fleet.server.socket_path, fleet.proxy.address, key, who)
        assert await work(*place, RUN_ID) == "completed"
        with pytest.raises(FleetProblem):  # the approval is spent
            await work(*place, RUN_ID)
        (worker,) = await fleet.operator.workers()
        assert (worker.worker_id, worker.work) == (who, "idle")
