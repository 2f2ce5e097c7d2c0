"""A proxy asks its fleet for questions, and not again and again where the fleet does not wait."""

from pathlib import Path

from palyra_egress.proxy.fleet_link import FleetLink
from palyra_egress.proxy.policy_talk import PolicyTalk
from tests.fakes.proxy_harness import proxy_harness
from tests.fakes.real_fleet import real_fleet

POLICY = "version: 1\nname: small\nrules: []\nprofiles: {test: []}\n"


async def test_a_fleet_that_answers_at_once_though_nothing_is_asked_is_not_polled_at_once(
    tmp_path: Path,
) -> None:
    async with (
        real_fleet() as fleet,
        proxy_harness(tmp_path / "proxy", POLICY, "", None) as harness,
        fleet.as_proxy() as client,
    ):
        enforcement = harness.proxy.enforcement
        talk = PolicyTalk(FleetLink(harness.core, client, None), enforcement.loaded)
        assert await talk.answer_one()
        assert talk.heard.is_set()
        fleet.service._policies.close()  # as when it shuts down: nobody waits there any more
        assert not await talk.answer_one()
