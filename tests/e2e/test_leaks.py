"""A canary sent by a real program under a real lease: refused, and its worker quarantined."""

import signal

import pytest

from tests.e2e.place import POLICY, Place
from tests.e2e.upstreams import API
from tests.fakes.until import until

DECOY = "AKIADECOY0000000QQ"
CANARIES = f"canaries: [{{id: decoy, value: {DECOY}, owner: o, reason: planted}}]\n"


@pytest.mark.parametrize("written", [DECOY, DECOY.lower(), DECOY.encode().hex()])
async def test_whoever_sends_a_canary_is_quarantined_and_nothing_arrives(
    place: Place, written: str
) -> None:
    policy = POLICY.replace("quarantine: [", "quarantine: [canary, ").format(
        port=place.upstreams.port
    )
    place.policy_file.write_text(policy + CANARIES)
    await place.up()
    puppet = await place.puppet("api")
    url = place.upstreams.url(API, "/open/thing")
    assert (await puppet.get(url))["status"] == 200
    refused = await puppet.get(f"{url}?note={written}")
    assert refused["status"] == 403
    assert "egress.canary" in str(refused["text"])

    async def is_quarantined() -> bool:
        (worker,) = await place.workers()
        return worker.admission == "quarantined"

    await until("the worker is quarantined", is_quarantined)
    assert await puppet.program.ended() == 128 + signal.SIGTERM
    (seen,) = await place.violations()
    violation = seen.payload
    assert (violation.reason, violation.rule_id) == ("egress.canary", "decoy")
    assert violation.policy_line == (policy + CANARIES).splitlines().index(CANARIES.strip()) + 1
    assert [request.path for request in place.upstreams.of(API)] == ["/open/thing"]
    for entry in place.audit():
        assert written not in str(entry)
