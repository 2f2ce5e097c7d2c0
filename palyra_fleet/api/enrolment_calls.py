"""Handlers of the operator's routes about launchers, proxies and reference values."""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.api.operator_calls import Handler
from palyra_fleet.service.enrolment_commands import Kind
from palyra_fleet.wire import enrolment_models as wire
from palyra_fleet.wire.models import EnrolKeyRequest, ReasonRequest, ReferenceValues


@answers.gives(answers.NOTHING)
async def enrol_launcher(call: Call) -> web.StreamResponse:
    await call.service.enrol_launcher(call.identity.id, call.read(EnrolKeyRequest))
    return answers.nothing()


@answers.gives(answers.NOTHING)
async def enrol_proxy(call: Call) -> web.StreamResponse:
    await call.service.enrol_proxy(call.identity.id, call.read(EnrolKeyRequest))
    return answers.nothing()


def enrol_device(kind: Kind) -> Handler:
    """The handler that enrols a paired device as a launcher or a proxy."""

    @answers.gives(answers.NOTHING)
    async def handler(call: Call) -> web.StreamResponse:
        asked = call.read(wire.EnrolDeviceKeyRequest)
        key = call.nodes.signing_key(asked.device_id, kind)
        await call.service.enrol_device(call.identity.id, kind, asked.name, asked.device_id, key)
        return answers.nothing()

    return handler


def listing(kind: Kind) -> Handler:
    """The handler that lists them, also those that were taken back."""

    @answers.gives(wire.EnrolmentList)
    async def handler(call: Call) -> web.StreamResponse:
        return answers.model(wire.EnrolmentList(items=await call.service.enrolments(kind)))

    return handler


def take_back(kind: Kind) -> Handler:
    """The handler that takes one back, with the workers that rest on it."""

    @answers.gives(answers.NOTHING)
    async def handler(call: Call) -> web.StreamResponse:
        reason, name = call.read(ReasonRequest).reason, call.part("name")
        await call.service.take_back(call.identity.id, kind, name, reason)
        return answers.nothing()

    return handler


@answers.gives(answers.NOTHING)
async def add_reference_values(call: Call) -> web.StreamResponse:
    await call.service.add_reference_values(call.identity.id, call.read(ReferenceValues))
    return answers.nothing()


@answers.gives(wire.ReferenceValueList)
async def list_reference_values(call: Call) -> web.StreamResponse:
    found = await call.service.reference_values()
    return answers.model(wire.ReferenceValueList(items=found))


@answers.gives(answers.NOTHING)
async def withdraw_references(call: Call) -> web.StreamResponse:
    asked = call.read(wire.WithdrawReferences)
    await call.service.withdraw_references(call.identity.id, asked)
    return answers.nothing()
