"""The one name that the proxy answers itself and never forwards: `receipt.palyra.internal`.

`GET /v1/receipt?nonce=…`: a worker that wants to be admitted shows its public key and a signature
over the fleet's nonce; the proxy signs {proxy, worker key, policy digest, nonce, time}, and the
fleet holds that against the same nonce and key: binding level `observed`.
`GET /v1/lease`: 204 once this proxy knows the lease whose credentials come with the request, so
that a program is not started before it can speak. Pure but for the signing key.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from mitmproxy import http

from palyra_egress.proxy.http.denial import Answer
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_fleet.wire.dsse import RECEIPT_TYPE, seal
from palyra_fleet.wire.keys import (
    PUBLIC_KEY_BYTES,
    SigningKey,
    signature_is_valid,
    thumbprint_sha256,
)
from palyra_fleet.wire.models import ReceiptPayload

RECEIPT_HOST: Final = "receipt.palyra.internal"
KEY_HEADER: Final = "Palyra-Worker-Key"
SIGNATURE_HEADER: Final = "Palyra-Worker-Signature"
SIGNATURE_CONTEXT: Final = b"palyra-proxy-receipt-v1"
LEASE_KNOWN: Final = Answer(204, "No Content", (("Cache-Control", "no-store"),), b"")

_PREFIX: Final = f"http://{RECEIPT_HOST}"
_LEASE: Final = "/v1/lease"
_RECEIPT = re.compile(r"/v1/receipt\?nonce=(?P<nonce>[A-Za-z0-9_-]{43})")


def is_own_target(head: RequestHead) -> bool:
    """Whether this request is for the proxy's own name."""
    return head.target.startswith(_PREFIX + "/")


def asks_for_lease(head: RequestHead) -> bool:
    """Whether it asks if the lease of its credentials is known here."""
    return head.method == "GET" and head.target == _PREFIX + _LEASE


@dataclass(frozen=True, slots=True)
class Receipt:
    """A signed receipt, ready to be sent, and the key it was made out for."""

    worker_key_sha256: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class ReceiptIssuer:
    """Signs receipts as one proxy."""

    key: SigningKey
    proxy_id: str

    def issue(
        self, head: RequestHead, headers: http.Headers, policy_digest: str, now_unix_ms: int
    ) -> Receipt | None:
        """The receipt, or None when the proof does not hold."""
        match = _RECEIPT.fullmatch(head.target.removeprefix(_PREFIX))
        if match is None or head.method != "GET":
            return None
        try:
            public_key = base64.b64decode(headers.get(KEY_HEADER, ""), validate=True)
            proof = base64.b64decode(headers.get(SIGNATURE_HEADER, ""), validate=True)
        except (binascii.Error, ValueError):
            return None
        message = SIGNATURE_CONTEXT + match["nonce"].encode()
        if len(public_key) != PUBLIC_KEY_BYTES or not signature_is_valid(
            public_key, proof, message
        ):
            return None
        payload = ReceiptPayload(
            proxy_id=self.proxy_id,
            worker_key_sha256=thumbprint_sha256(public_key),
            policy_digest=policy_digest,
            nonce=match["nonce"],
            at_unix_ms=now_unix_ms,
        )
        envelope = seal(self.key, RECEIPT_TYPE, payload.model_dump_json().encode())
        body = envelope.model_dump_json().encode()
        headers_out = (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        )
        return Receipt(payload.worker_key_sha256, Answer(200, "OK", headers_out, body))
