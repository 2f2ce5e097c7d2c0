"""Handlers of the proxy's routes: the live view as a stream of JSON lines, and evidence.

Each line is written by itself and must be taken within the write time-out: a proxy that reads too
slowly would believe an old view, so its connection is aborted and it must subscribe anew.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Final

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.api.event_stream import STREAMING, abort
from palyra_fleet.api.problems import ApiReason, ApiRefusal, Headers
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.models import EvidenceChain, ProxyBeat, ViolationAnswer
from palyra_fleet.wire.policy_models import PolicyPoll, PolicyQuestions, ProxyAnswer
from palyra_fleet.wire.traffic_models import TrafficReport
from palyra_fleet.wire.view_models import ViewMessage

MAX_SEQ: Final = 10**15 - 1
_log = logging.getLogger(__name__)


@answers.gives(answers.Gives(ViewMessage, content_type="application/x-ndjson"))
async def view(call: Call) -> web.StreamResponse:
    """Every change of the bindings, until either side goes away; from where the proxy was, where
    it says so and that is still known."""
    epoch = call.number("epoch", default=0, least=0, most=MAX_SEQ)
    seq = call.number("after_seq", default=0, least=0, most=MAX_SEQ)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    messages = call.service.view(call.identity.id, (epoch, seq) if epoch else None)
    call.request[STREAMING] = True
    await response.prepare(call.request)
    try:
        async for message in messages:
            line = message.model_dump_json().encode() + b"\n"
            async with asyncio.timeout(call.write_timeout_ms / 1000):
                await response.write(line)
    except TimeoutError:
        _log.warning("proxy %s reads its view too slowly; dropped", call.identity.id)
        abort(call.request)
    except FleetRefusal as refusal:
        _log.info("view of proxy %s ended: %s", call.identity.id, refusal.reason.value)
        abort(call.request)
    finally:
        if isinstance(messages, AsyncGenerator):
            await messages.aclose()
    return response


@answers.gives(EvidenceChain)
async def beat(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.proxy_beat(call.identity.id, call.read(ProxyBeat)))


@answers.gives(answers.NOTHING)
async def report_traffic(call: Call) -> web.StreamResponse:
    """Not more than twice a second, and looked at before the report is read."""
    if not call.service.traffic_is_due(call.identity.id):
        raise ApiRefusal(ApiReason.TOO_FAST, headers=Headers({"Retry-After": "1"}))
    call.service.report_traffic(call.identity.id, call.read(TrafficReport))
    return answers.nothing()


@answers.gives(PolicyQuestions)
async def next_question(call: Call) -> web.StreamResponse:
    """Long poll: answers when there is a question about the policy, or with none when the wait is
    over. A proxy that was taken back is refused at once."""
    question = await call.service.next_question(call.identity.id, call.read(PolicyPoll))
    call.still()
    return answers.model(PolicyQuestions(items=() if question is None else (question,)))


@answers.gives(answers.NOTHING)
async def answer_question(call: Call) -> web.StreamResponse:
    call.service.take_answer(call.identity.id, call.read(ProxyAnswer))
    return answers.nothing()


@answers.gives(ViolationAnswer)
async def accept_violation(call: Call) -> web.StreamResponse:
    envelope = call.read(DsseEnvelope)
    return answers.model(await call.service.accept_violation(call.identity.id, envelope))


@answers.gives(EvidenceChain)
async def evidence_chain(call: Call) -> web.StreamResponse:
    return answers.model(await call.service.evidence_chain(call.identity.id))
