"""Handlers of the operator's routes about devices, certificates and the authority.

Who asked is the principal that the token stands for; why is in the body.
"""

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.api.changes import notes
from palyra_fleet.api.paging import DEFAULT_ROWS, MAX_ROWS, ListOf, cut
from palyra_fleet.identity.known_certificates import CertificateFilter
from palyra_fleet.identity.records import ClientKind
from palyra_fleet.ledger.decision import EventReason
from palyra_fleet.nodes.device_operations import DeviceFilter
from palyra_fleet.wire.certificate_models import (
    LONGEST_MS,
    CertificateKind,
    CertificateList,
    CertificateView,
    Standing,
    place_of,
)
from palyra_fleet.wire.models import ReasonRequest
from palyra_fleet.wire.node_models import (
    AuthorityList,
    DeviceList,
    DeviceState,
    DeviceView,
    RotateDeviceRequest,
)


@answers.gives(DeviceList)
async def list_devices(call: Call) -> web.StreamResponse:
    """A page of the devices that paired, revoked ones too, the newest id first."""
    limit = call.number("limit", default=DEFAULT_ROWS, least=1, most=MAX_ROWS)
    wanted = DeviceFilter(call.maybe("state", DeviceState), call.maybe("kind", ClientKind))
    found = call.nodes.devices(limit + 1, call.cursor(ListOf.DEVICES), wanted)
    page = cut(ListOf.DEVICES, found, lambda one: one.device_id, limit)
    return answers.model(DeviceList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(DeviceView)
async def show_device(call: Call) -> web.StreamResponse:
    return answers.model(call.nodes.device(call.part("device_id")))


@answers.gives(DeviceView)
@notes(EventReason.DEVICE_ROTATION_DEMANDED)
async def rotate_device(call: Call) -> web.StreamResponse:
    """Demand another certificate with another key; the ones of now end at the deadline."""
    asked, device_id = call.read(RotateDeviceRequest), call.part("device_id")
    return answers.model(await call.nodes.rotate_device(call.identity.id, device_id, asked))


@answers.gives(answers.NOTHING)
@notes(EventReason.DEVICE_REVOKED)
async def revoke_device(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    await call.nodes.revoke_device(call.identity.id, call.part("device_id"), reason)
    return answers.nothing()


@answers.gives(answers.NOTHING)
@notes(EventReason.DEVICE_REMOVED)
async def remove_device(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    await call.nodes.remove_device(call.identity.id, call.part("device_id"), reason)
    return answers.nothing()


@answers.gives(CertificateList)
async def list_certificates(call: Call) -> web.StreamResponse:
    """A page of the certificates that the fleet issued and remembers, the newest first."""
    limit = call.number("limit", default=DEFAULT_ROWS, least=1, most=MAX_ROWS)
    wanted = CertificateFilter(
        standing=call.maybe("state", Standing),
        kind=call.maybe("kind", CertificateKind),
        device_id=call.optional_id("device_id"),
        expires_within_ms=call.maybe_number("expires_within_ms", most=LONGEST_MS),
    )
    found = call.nodes.certificates(wanted, limit + 1, call.cursor(ListOf.CERTIFICATES))
    page = cut(ListOf.CERTIFICATES, found, _place, limit)
    return answers.model(CertificateList(items=page.items, next_cursor=page.next_cursor))


@answers.gives(AuthorityList)
async def list_authorities(call: Call) -> web.StreamResponse:
    return answers.model(AuthorityList(items=call.nodes.authorities()))


@answers.gives(AuthorityList)
@notes(EventReason.AUTHORITY_ROTATED)
async def rotate_authority(call: Call) -> web.StreamResponse:
    reason = call.read(ReasonRequest).reason
    found = await call.nodes.rotate_authority(call.identity.id, reason)
    return answers.model(AuthorityList(items=found))


def _place(one: CertificateView) -> str:
    return place_of(one.issued_at_unix_ms, one.fingerprint_sha256)
