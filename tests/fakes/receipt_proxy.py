"""A proxy that answers only for itself: receipts, honestly checked, and if it knows a lease."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.dsse import RECEIPT_TYPE, seal
from palyra_fleet.wire.keys import SigningKey, signature_is_valid, thumbprint_sha256
from palyra_fleet.wire.models import ReceiptPayload


@dataclass(slots=True)
class ReceiptProxy:
    """`answer_with` replaces the receipt by other bytes; `status` by another status.

    `lease_statuses` are the answers to "is this lease known": the first is used up, the last stays.
    """

    key: SigningKey
    name: str = "proxy-1"
    address: str = ""
    status: int = 200
    answer_with: bytes | None = None
    targets: list[str] = field(default_factory=list)
    policy_digest: str = "sha256:test"
    before_answer: Callable[[], object] = lambda: None
    clock: Callable[[], int] = now_unix_ms
    lease_statuses: list[int] = field(default_factory=lambda: [204])
    lease_credentials: list[str] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v1/lease":
            return self.about_lease(request)
        waits_for = self.before_answer()
        if isinstance(waits_for, Awaitable):
            await waits_for
        self.targets.append(f"{request.method} {request.raw_path}")
        nonce = request.query.get("nonce", "")
        key = base64.b64decode(request.headers["Palyra-Worker-Key"])
        signature = base64.b64decode(request.headers["Palyra-Worker-Signature"])
        if not signature_is_valid(key, signature, b"palyra-proxy-receipt-v1" + nonce.encode()):
            return web.Response(status=403)
        payload = ReceiptPayload(
            proxy_id=self.name,
            worker_key_sha256=thumbprint_sha256(key),
            policy_digest=self.policy_digest,
            nonce=nonce,
            at_unix_ms=self.clock(),
        )
        envelope = seal(self.key, RECEIPT_TYPE, payload.model_dump_json().encode())
        body = self.answer_with or envelope.model_dump_json().encode()
        return web.Response(status=self.status, body=body, content_type="application/json")

    def about_lease(self, request: web.BaseRequest) -> web.StreamResponse:
        _, _, credentials = request.headers["Proxy-Authorization"].partition(" ")
        self.lease_credentials.append(base64.b64decode(credentials).decode())
        more = len(self.lease_statuses) > 1
        return web.Response(status=self.lease_statuses.pop(0) if more else self.lease_statuses[0])


@asynccontextmanager
async def receipt_proxy(
    key: SigningKey, clock: Callable[[], int] = now_unix_ms
) -> AsyncIterator[ReceiptProxy]:
    proxy = ReceiptProxy(key, clock=clock)
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
