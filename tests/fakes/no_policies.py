"""The fake fleet whose proxies never told of a policy: what they tell has tests of its own on the
real fleet."""

from collections.abc import Iterable
from typing import NoReturn

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.models import ViolationView
from palyra_fleet.wire.policy_models import (
    CheckRequest,
    ExplainRequest,
    PolicyPoll,
    ProxyAnswer,
    ProxyPolicy,
    Replayed,
)


class NoPolicies:
    """Mixed into `FakeFleetService`."""

    def _enter(self, call: str) -> None:
        raise NotImplementedError

    async def next_question(self, proxy_id: str, poll: PolicyPoll) -> None:
        self._enter("next_question")

    def take_answer(self, proxy_id: str, told: ProxyAnswer) -> NoReturn:
        self._enter("take_answer")
        raise FleetRefusal(FleetReason.QUESTION_UNKNOWN, "nobody asked")

    def policies(self) -> tuple[ProxyPolicy, ...]:
        self._enter("policies")
        return ()

    async def policy_rules(self, proxy_id: str) -> NoReturn:
        self._enter("policy_rules")
        raise FleetRefusal(FleetReason.POLICY_PROXY_UNKNOWN, f"proxy '{proxy_id}' is unknown")

    async def explain(self, asked: ExplainRequest) -> NoReturn:
        self._enter("explain")
        raise FleetRefusal(FleetReason.POLICY_PROXY_SILENT, "no proxy speaks to the fleet now")

    async def check_policy(self, asked: CheckRequest) -> NoReturn:
        self._enter("check_policy")
        raise FleetRefusal(FleetReason.POLICY_PROXY_SILENT, "no proxy speaks to the fleet now")

    async def judged_now(
        self, evidence: Iterable[ViolationView], profiles: dict[str, str]
    ) -> dict[str, Replayed]:
        self._enter("judged_now")
        return {}
