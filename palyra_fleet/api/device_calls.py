"""Handlers of a paired machine's own routes: its next certificate, a proxy's enrolment.

The device is the certificate's, never the body's. A proxy's key is the one it paired with, whose
fingerprint an operator compared and approved.
"""

import base64
import hmac

from aiohttp import web

from palyra_fleet.api import answers
from palyra_fleet.api.call import Call
from palyra_fleet.api.problems import ApiReason, ApiRefusal
from palyra_fleet.identity.records import ClientKind
from palyra_fleet.wire.device_models import (
    EnrolDeviceRequest,
    EnrolledDeviceAnswer,
    OwnCertificateAnswer,
    RotateCertificateAnswer,
    RotateCertificateRequest,
)


@answers.gives(OwnCertificateAnswer)
async def show_certificate(call: Call) -> web.StreamResponse:
    """What the machine calls with, and whether it is time for the next."""
    if call.device is None or call.devices is None:
        raise ApiRefusal(ApiReason.CALLER_NOT_ALLOWED)
    return answers.model(
        OwnCertificateAnswer(
            fingerprint_sha256=call.device.fingerprint,
            cert_expires_at_unix_ms=call.device.cert_expires_at_unix_ms,
            renewal_due=call.devices.renewal_due(call.device),
        )
    )


@answers.gives(RotateCertificateAnswer)
async def rotate_certificate(call: Call) -> web.StreamResponse:
    asked = call.read(RotateCertificateRequest)
    if call.device is None or call.devices is None:
        raise ApiRefusal(ApiReason.CALLER_NOT_ALLOWED)
    issued = await call.devices.rotate(call.device, asked.certificate_signing_request_pem)
    return answers.model(
        RotateCertificateAnswer(
            certificate_pem=issued.certificate_pem,
            gateway_ca_certificate_pem=issued.gateway_ca_certificate_pem,
            cert_expires_at_unix_ms=issued.cert_expires_at_unix_ms,
        )
    )


@answers.gives(EnrolledDeviceAnswer)
async def enrol_proxy(call: Call) -> web.StreamResponse:
    """Enrol the proxy that this device is; the same again changes nothing."""
    asked, device = call.read(EnrolDeviceRequest), call.device
    if device is None or device.client_kind is not ClientKind.PROXY:
        raise ApiRefusal(ApiReason.CALLER_NOT_ALLOWED)
    key = base64.b64decode(asked.public_key, validate=True)
    if not hmac.compare_digest(key, device.signing_public_key):
        raise ApiRefusal(ApiReason.OTHER_DEVICE, "the key is not the one this device paired with")
    await call.service.enrol_device(
        f"device:{device.device_id}", "proxy", asked.name, device.device_id, key
    )
    return answers.model(EnrolledDeviceAnswer(kind="proxy", name=asked.name))
