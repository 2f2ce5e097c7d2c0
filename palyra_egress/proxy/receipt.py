"""The receipt: the proxy's signed word that it saw a worker's key through itself.

A worker that wants to be admitted sends `GET http://receipt.palyra.internal/v1/receipt?nonce=…`
through the proxy with its public key and a signature over the fleet's nonce. The proxy answers this
one name itself, forwards nothing, and signs {proxy, worker key, policy digest, nonce, time}. The
fleet holds that against the same nonce and key: binding level `observed`. Pure but for the key.
"""

import base64
import binascii
import re

from palyra_egress.proxy.denial import Answer
from palyra_fleet.wire.dsse import RECEIPT_TYPE, seal
from palyra_fleet.wire.keys import (
    PUBLIC_KEY_BYTES,
    SigningKey,
    signature_is_valid,
    thumbprint_sha256,
)
from palyra_fleet.wire.models import ReceiptPayload

RECEIPT_HOST = "receipt.palyra.internal"
KEY_HEADER = "Palyra-Worker-Key"
SIGNATURE_HEADER = "Palyra-Worker-Signature"
SIGNATURE_CONTEXT = b"palyra-proxy-receipt-v1"

_TARGET = re.compile(r"/v1/receipt\?nonce=(?P<nonce>[A-Za-z0-9_-]{43})")


def issue_receipt(
    key: SigningKey,
    proxy_id: str,
    policy_digest: str,
    target: str,
    worker_key: str,
    signature: str,
    now_unix_ms: int,
) -> Answer | None:
    """The 200 answer that carries the receipt, or None when the proof does not hold."""
    match = _TARGET.fullmatch(target)
    if match is None:
        return None
    try:
        public_key = base64.b64decode(worker_key, validate=True)
        proof = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return None
    message = SIGNATURE_CONTEXT + match["nonce"].encode()
    if len(public_key) != PUBLIC_KEY_BYTES or not signature_is_valid(public_key, proof, message):
        return None
    payload = ReceiptPayload(
        proxy_id=proxy_id,
        worker_key_sha256=thumbprint_sha256(public_key),
        policy_digest=policy_digest,
        nonce=match["nonce"],
        at_unix_ms=now_unix_ms,
    )
    body = seal(key, RECEIPT_TYPE, payload.model_dump_json().encode()).model_dump_json().encode()
    headers = (
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    )
    return Answer(200, "OK", headers, body)
