"""A proxy that only signs receipts: the worker's half of the receipt protocol, checked honestly."""

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.dsse import RECEIPT_TYPE, seal
from palyra_fleet.wire.keys import SigningKey, signature_is_valid, thumbprint_sha256
from palyra_fleet.wire.models import ReceiptPayload


@dataclass(slots=True)
class ReceiptProxy:
    """`answer_with` replaces the receipt by other bytes; `status` by another status."""

    key: SigningKey
    name: str = "proxy-1"
    address: str = ""
    status: int = 200
    answer_with: bytes | None = None
    targets: list[str] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.before_answer()
        self.targets.append(f"{request.method} {request.raw_path}")
        nonce = request.query.get("nonce", "")
        key = base64.b64decode(request.headers["Palyra-Worker-Key"])
        signature = base64.b64decode(request.headers["Palyra-Worker-Signature"])
        if not signature_is_valid(key, signature, b"palyra-proxy-receipt-v1" + nonce.encode()):
            return web.Response(status=403)
        payload = ReceiptPayload(
            proxy_id=self.name,
            worker_key_sha256=thumbprint_sha256(key),
            policy_digest="sha256:test",
            nonce=nonce,
            at_unix_ms=now_unix_ms(),
        )
        envelope = seal(self.key, RECEIPT_TYPE, payload.model_dump_json().encode())
        body = self.answer_with or envelope.model_dump_json().encode()
        return web.Response(status=self.status, body=body, content_type="application/json")


@asynccontextmanager
async def receipt_proxy(key: SigningKey) -> AsyncIterator[ReceiptProxy]:
    proxy = ReceiptProxy(key)
    runner = web.ServerRunner(web.Server(proxy.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    proxy.address = f"{host}:{port}"
    try:
        yield proxy
    finally:
        await runner.cleanup()
