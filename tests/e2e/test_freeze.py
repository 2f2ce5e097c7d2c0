"""The kill switch over real processes: frozen egress stops a worker that runs, and it goes on."""

from tests.e2e.place import Place
from tests.e2e.upstreams import API
from tests.fakes.until import until


async def test_frozen_egress_stops_who_runs_and_who_comes_until_it_is_let_go_on(
    place: Place,
) -> None:
    await place.up()
    url = place.upstreams.url(API, "/open/thing")
    puppet = await place.puppet("api")
    assert (await puppet.get(url))["status"] == 200
    frozen = await place.fleet("freeze", "egress", "--reason", "something leaves")
    assert frozen.code == 0, frozen.err

    async def refused() -> bool:
        return "fleet.egress_frozen" in str((await puppet.get(url))["text"])

    await until("the proxy hears that egress is frozen", refused)
    late = await place.run_to_its_end("api", "true")
    assert late.code != 0 and "fleet.frozen" in late.err, late.err
    assert puppet.is_alive(), "a freeze ends no run"
    (entry,) = [one for one in place.audit() if one.get("reason") == "fleet.egress_frozen"][:1]
    (worker, *_) = await place.workers()
    assert entry["worker_id"] == worker.worker_id, "the refusal stands under the worker's name"
    await place.fleet("unfreeze", "egress", "--reason", "the rule is mended")

    async def passes() -> bool:
        return bool((await puppet.get(url))["status"] == 200)

    await until("what runs goes on", passes)
    assert (await place.run_to_its_end("api", "true")).code != 0
    await place.fleet("unfreeze", "all", "--reason", "looked at")
    assert (await place.run_to_its_end("api", "true")).code == 0
