"""Handlers of the operator's routes about egress policies. None of them changes anything: a
question goes to a proxy, and the answer says by which policy it was given."""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.client.lists import PolicyList
from palyra_fleet.wire.policy_models import (
    CheckAnswer,
    CheckRequest,
    ExplainAnswer,
    ExplainRequest,
    ProxyRules,
)


@answers.gives(PolicyList)
async def list_policies(call: Call) -> web.StreamResponse:
    return answers.model(PolicyList(items=call.service.policies()))


@answers.gives(ProxyRules)
async def show_rules(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.policy_rules(call.part("name")))


@answers.gives(ExplainAnswer)
async def explain(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.explain(call.read(ExplainRequest)))


@answers.gives(CheckAnswer)
async def check(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.check_policy(call.read(CheckRequest)))
