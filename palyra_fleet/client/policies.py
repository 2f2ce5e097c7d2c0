"""What an operator may ask about egress policies; a proxy answers, by the one it has in force."""

from typing import Final

from palyra_fleet.client.lists import PolicyList
from palyra_fleet.client.transport import FleetClient
from palyra_fleet.wire.policy_models import (
    CheckAnswer,
    CheckRequest,
    ExplainAnswer,
    ExplainRequest,
    ProxyPolicy,
    ProxyRules,
)

EXTRA_WAIT_MS: Final = 10_000
"""The fleet waits for the proxy that checks, whose machine may be busy."""


class PolicyCalls(FleetClient):
    """Questions that change nothing. FleetProblem where no proxy can be asked."""

    async def policies(self) -> tuple[ProxyPolicy, ...]:
        """What each enrolled proxy has in force, by its name."""
        return (await self.call("GET", "/v1/policies", PolicyList)).items

    async def policy_rules(self, proxy_id: str) -> ProxyRules:
        return await self.call("GET", f"/v1/policies/{proxy_id}", ProxyRules)

    async def explain(self, asked: ExplainRequest) -> ExplainAnswer:
        return await self.call("POST", "/v1/policies:explain", ExplainAnswer, asked)

    async def check_policy(self, asked: CheckRequest) -> CheckAnswer:
        return await self.call(
            "POST", "/v1/policies:check", CheckAnswer, asked, extra_wait_ms=EXTRA_WAIT_MS
        )
