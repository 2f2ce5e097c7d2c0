"""What a paired machine asks of the API for other machines, beside what workers and proxies ask."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from palyra_fleet.wire.models import Base64Key, Name, UnixMs, WireModel

Pem = Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class RotateCertificateRequest(WireModel):
    """A PKCS#10 request for the next certificate of the device that asks."""

    certificate_signing_request_pem: Pem


class RotateCertificateAnswer(WireModel):
    """The next certificate, good from its first use on, and the roots to trust from now on."""

    certificate_pem: str
    gateway_ca_certificate_pem: str
    cert_expires_at_unix_ms: UnixMs


class OwnCertificateAnswer(WireModel):
    """The certificate that the device calls with. `renewal_due`: it should ask for the next one
    now, since half of its life is over, an operator demands it or another authority signs."""

    fingerprint_sha256: str
    cert_expires_at_unix_ms: UnixMs
    renewal_due: bool


class EnrolDeviceRequest(WireModel):
    """A proxy takes its place in the fleet. The key is the one it paired with, and no other."""

    name: Name
    public_key: Base64Key


class EnrolledDeviceAnswer(WireModel):
    kind: Literal["proxy"]
    name: Name
