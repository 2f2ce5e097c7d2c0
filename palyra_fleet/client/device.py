"""What a paired machine asks of the fleet for itself. Its certificate says who asks.

`Nobody` adds nothing to a request: on the listener for other machines the certificate is enough for
these calls.
"""

import base64
from collections.abc import Mapping

from palyra_fleet.client.transport import FleetClient, RemoteFleet
from palyra_fleet.wire.device_models import (
    EnrolDeviceRequest,
    EnrolledDeviceAnswer,
    OwnCertificateAnswer,
    RotateCertificateAnswer,
    RotateCertificateRequest,
)


class Nobody:
    """No credentials beside the connection's."""

    def headers(self, method: str, target: str, body: bytes) -> Mapping[str, str]:
        del method, target, body
        return {}


class DeviceClient(FleetClient):
    """The machine's own calls."""

    def __init__(self, where: RemoteFleet) -> None:
        super().__init__(where, Nobody())

    async def is_accepted(self) -> None:
        """Raises FleetProblem if the fleet does not take this certificate."""
        await self.send("GET", "/livez")

    async def certificate(self) -> OwnCertificateAnswer:
        """The certificate of this connection, and whether it is time for the next."""
        return await self.call("GET", "/v1/device/certificate", OwnCertificateAnswer)

    async def rotate_certificate(self, csr_pem: str) -> RotateCertificateAnswer:
        request = RotateCertificateRequest(certificate_signing_request_pem=csr_pem)
        target = "/v1/device/certificate:rotate"
        return await self.call("POST", target, RotateCertificateAnswer, request)

    async def enrol_proxy(self, name: str, public_key: bytes) -> None:
        """Take this proxy's place in the fleet; the same again changes nothing."""
        encoded = base64.b64encode(public_key).decode()
        request = EnrolDeviceRequest(name=name, public_key=encoded)
        await self.call("POST", "/v1/device/proxy", EnrolledDeviceAnswer, request)
