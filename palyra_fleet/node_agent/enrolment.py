"""Pairing from the node's side: a code in, a certificate out, with an operator's approval between.

The code comes from standard input, never from an argument. The node makes its keys, proves over the
published transcript that it holds them and knows the code, shows what the operator must compare,
and asks for the outcome until there is one. Nothing is stored before the certificate is there: a
pairing that was interrupted begins again with a new code. Source: specification 30, section 3.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from ulid import ULID

from palyra_fleet.identity import pairing_transcript as transcript
from palyra_fleet.node_agent.channel import open_channel
from palyra_fleet.node_agent.keys import CertificateKey, merged_roots
from palyra_fleet.node_agent.material import NodeMaterial
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc

ASK_EVERY_S: Final = 0.25
CALL_WITHIN_S: Final = 10.0
CLIENT_KINDS: Final = ("node", "proxy", "desktop", "cli")
_PIN: Final = re.compile(r"[0-9]{6}")
_LEAST_TOKEN, _LONGEST_TOKEN = 16, 128


class PairingFailed(Exception):
    """The fleet refused, could not be reached, or the operator rejected; the text says which."""


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """Where the fleet is and how it is trusted. Addresses are `host:port`."""

    enrolment_address: str
    node_address: str
    root_pem: str
    client_kind: str = "node"


def method_of(code: str) -> node_pb2.PairingMethod:
    """Six digits are a PIN, anything longer a QR code's token. Raises PairingFailed."""
    if _PIN.fullmatch(code):
        return node_pb2.PairingMethod(pin_code=code)
    if _LEAST_TOKEN <= len(code.encode()) <= _LONGEST_TOKEN and code.isascii():
        return node_pb2.PairingMethod(qr_token=code)
    raise PairingFailed(
        f"that is no code: expected 6 digits, or a token of {_LEAST_TOKEN} to"
        f" {_LONGEST_TOKEN} characters"
    )


async def enrol(settings: EnrolmentSettings, code: str, say: Callable[[str], None]) -> NodeMaterial:
    """Pair this node. Raises PairingFailed or CertificateRefused."""
    method = method_of(code)
    async with open_channel(settings.enrolment_address, settings.root_pem) as channel:
        node = _Pairing(settings, node_pb2_grpc.NodeServiceStub(channel))
        try:
            await node.prove(method, code)
            say(f"device                {node.device_id}")
            say(f"identity fingerprint  {node.fingerprint}")
            say(f"transcript hash       {node.transcript_hash}")
            say("waiting for an operator, who sees the same two lines and approves or rejects")
            return await node.outcome()
        except grpc.aio.AioRpcError as error:
            raise PairingFailed(_sentence(error, settings.enrolment_address)) from error


class _Pairing:
    """One attempt: fresh keys, one session."""

    def __init__(self, settings: EnrolmentSettings, stub: node_pb2_grpc.NodeServiceStub) -> None:
        self._settings = settings
        self._stub = stub
        self._signing = Ed25519PrivateKey.generate()
        self._exchange = X25519PrivateKey.generate()
        self._session_id = ""
        self.device_id = str(ULID())
        self._certificate_key = CertificateKey.make(self.device_id)
        self.transcript_hash = ""
        self.fingerprint = transcript.identity_fingerprint(self._signing_public)

    @property
    def _signing_public(self) -> bytes:
        return self._signing.public_key().public_bytes_raw()

    async def prove(self, method: node_pb2.PairingMethod, code: str) -> None:
        """Begin a session and complete it."""
        kind = self._settings.client_kind
        version = transcript.PROTOCOL_VERSION
        begun = await self._stub.BeginPairingSession(
            node_pb2.BeginPairingSessionRequest(v=version, client_kind=kind, method=method),
            timeout=CALL_WITHIN_S,
        )
        self._session_id = begun.session_id
        payload = transcript.signature_payload(
            version,
            begun.session_id,
            begun.challenge,
            begun.gateway_ephemeral_public,
            self.device_id,
            kind,
            code,
        )
        shared = transcript.shared_secret(
            self._exchange.private_bytes_raw(), begun.gateway_ephemeral_public
        )
        if shared is None:
            raise PairingFailed("the fleet's key shares nothing with anybody")
        context = transcript.transcript_context(version, begun.session_id, self.device_id, kind)
        mac = transcript.transcript_mac(shared, begun.challenge, context)
        self.transcript_hash = transcript.transcript_hash(mac)
        completed = await self._stub.CompletePairingSession(
            node_pb2.CompletePairingSessionRequest(
                v=version,
                session_id=begun.session_id,
                device_id=common_pb2.CanonicalId(ulid=self.device_id),
                client_kind=kind,
                proof=code,
                device_signing_public=self._signing_public,
                device_x25519_public=self._exchange.public_key().public_bytes_raw(),
                challenge_signature=self._signing.sign(payload),
                transcript_mac=mac,
                certificate_signing_request_pem=self._certificate_key.request_pem,
            ),
            timeout=CALL_WITHIN_S,
        )
        theirs = (completed.identity_fingerprint, completed.transcript_hash)
        if theirs != (self.fingerprint, self.transcript_hash):
            raise PairingFailed("the fleet saw another transcript than this node: do not approve")

    async def outcome(self) -> NodeMaterial:
        """Ask until the request is decided; then take the certificate."""
        request = node_pb2.GetPairingRequestStatusRequest(
            v=transcript.PROTOCOL_VERSION,
            session_id=self._session_id,
            device_id=common_pb2.CanonicalId(ulid=self.device_id),
            device_signature=self._signing.sign(transcript.status_payload(self._session_id)),
        )
        while True:
            status = await self._stub.GetPairingRequestStatus(request, timeout=CALL_WITHIN_S)
            match status.status:
                case "completed":
                    return self._material(status)
                case "rejected":
                    raise PairingFailed(f"an operator rejected it: {status.reason}")
                case "expired":
                    raise PairingFailed("nobody approved it in time; ask for a new code")
                case _:
                    await asyncio.sleep(ASK_EVERY_S)

    def _material(self, status: node_pb2.GetPairingRequestStatusResponse) -> NodeMaterial:
        roots = merged_roots(self._settings.root_pem, status.gateway_ca_certificate_pem)
        return NodeMaterial(
            device_id=self.device_id,
            client_kind=self._settings.client_kind,
            node_address=self._settings.node_address,
            enrolment_address=self._settings.enrolment_address,
            trusted_roots_pem=roots,
            signing_seed_hex=self._signing.private_bytes_raw().hex(),
            certificate=self._certificate_key.certificate(
                status.mtls_client_certificate_pem,
                self.device_id,
                roots,
                status.cert_expires_at_unix_ms,
            ),
        )


def _sentence(error: grpc.aio.AioRpcError, address: str) -> str:
    if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        return f"the fleet cannot be reached at {address}, or is not the one we trust"
    return f"the fleet refused: {error.details()}"
