"""The proxy's receipt: a worker shows its key through the proxy, the proxy signs that it saw it.

The worker asks for a name that exists only inside the proxy, in plain absolute-form HTTP, and signs
the fleet's nonce with its key; the proxy answers itself with a DSSE envelope. The envelope is
passed on to the fleet unopened: only the fleet knows the proxy's key.
"""

import base64
from typing import Final

import aiohttp
from pydantic import ValidationError
from yarl import URL

from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.keys import SigningKey

RECEIPT_HOST: Final = "receipt.palyra.internal"
RECEIPT_PATH: Final = "/v1/receipt"
KEY_HEADER: Final = "Palyra-Worker-Key"
SIGNATURE_HEADER: Final = "Palyra-Worker-Signature"
SIGNED_PREFIX: Final = b"palyra-proxy-receipt-v1"
MAX_RECEIPT_BYTES: Final = 64 * 1024


class ReceiptRefused(Exception):
    """The proxy could not be reached, refused, or answered something that is no receipt."""


def receipt_headers(key: SigningKey, nonce: str) -> dict[str, str]:
    """What proves to the proxy that the caller holds this key, for this nonce."""
    signature = key.sign(SIGNED_PREFIX + nonce.encode("ascii"))
    return {
        KEY_HEADER: base64.b64encode(key.public_key).decode(),
        SIGNATURE_HEADER: base64.b64encode(signature).decode(),
    }


async def fetch_receipt(
    proxy_address: str, key: SigningKey, nonce: str, *, timeout_ms: int = 10_000
) -> DsseEnvelope:
    """Ask the proxy at `host:port` for a receipt over `nonce`. Raises ReceiptRefused."""
    url = URL.build(
        scheme="http", host=RECEIPT_HOST, path=RECEIPT_PATH, query_string=f"nonce={nonce}"
    )
    waits = aiohttp.ClientTimeout(total=timeout_ms / 1000)
    try:
        async with (
            aiohttp.ClientSession(timeout=waits, trust_env=False) as session,
            session.get(
                url,
                proxy=f"http://{proxy_address}",
                headers=receipt_headers(key, nonce),
                allow_redirects=False,
            ) as response,
        ):
            status = response.status
            raw = await response.content.read(MAX_RECEIPT_BYTES + 1)
            while not response.content.at_eof() and len(raw) <= MAX_RECEIPT_BYTES:
                raw += await response.content.read(MAX_RECEIPT_BYTES + 1 - len(raw))
    except TimeoutError as error:
        raise ReceiptRefused(f"the proxy at {proxy_address} did not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ReceiptRefused(
            f"the proxy at {proxy_address} cannot be reached ({type(error).__name__})"
        ) from error
    if status != 200:
        raise ReceiptRefused(f"the proxy at {proxy_address} gave no receipt (status {status})")
    if len(raw) > MAX_RECEIPT_BYTES:
        raise ReceiptRefused(f"the receipt is larger than {MAX_RECEIPT_BYTES} bytes")
    try:
        return DsseEnvelope.model_validate_json(raw)
    except ValidationError:
        raise ReceiptRefused(f"the proxy at {proxy_address} sent something else") from None
