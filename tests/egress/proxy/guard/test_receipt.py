"""The proxy's own name: receipts for who holds the key, and nothing for anybody else."""

import base64
import json

import pytest
from mitmproxy import http

from palyra_egress.proxy.guard.receipt import (
    KEY_HEADER,
    RECEIPT_HOST,
    SIGNATURE_CONTEXT,
    SIGNATURE_HEADER,
    ReceiptIssuer,
    asks_for_lease,
    is_own_target,
)
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_fleet.wire.dsse import RECEIPT_TYPE, DsseEnvelope, EnvelopeRefused, open_envelope
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ReceiptPayload
from tests.egress.proxy.lanes import chaos
from tests.fakes.proxy_harness import basic

NONCE = "n" * 43
TARGET = f"http://{RECEIPT_HOST}/v1/receipt?nonce={NONCE}"
WORKER_KEY, PROXY_KEY = SigningKey.generate(), SigningKey.generate()
ISSUER = ReceiptIssuer(PROXY_KEY, "proxy-1")


def proof(
    key: bytes | None = None, signed: bytes | None = None, signature: bytes | None = None
) -> http.Headers:
    message = signed if signed is not None else SIGNATURE_CONTEXT + NONCE.encode()
    return http.Headers(
        [
            (KEY_HEADER.encode(), base64.b64encode(key or WORKER_KEY.public_key)),
            (SIGNATURE_HEADER.encode(), base64.b64encode(signature or WORKER_KEY.sign(message))),
        ]
    )


def issue(target: str = TARGET, headers: http.Headers | None = None, method: str = "GET"):
    receipt = ISSUER.issue(RequestHead(method, target), headers or proof(), "digest", 5)
    return None if receipt is None else receipt.answer


def test_a_proof_of_the_key_is_answered_with_a_signed_receipt():
    answer = issue()
    assert answer is not None and answer.status == 200
    envelope = DsseEnvelope.model_validate_json(answer.body)
    payload = open_envelope(envelope, RECEIPT_TYPE, PROXY_KEY.public_key)
    assert ReceiptPayload.model_validate_json(payload) == ReceiptPayload(
        proxy_id="proxy-1",
        worker_key_sha256=WORKER_KEY.thumbprint,
        policy_digest="digest",
        nonce=NONCE,
        at_unix_ms=5,
    )
    with pytest.raises(EnvelopeRefused):
        open_envelope(envelope, RECEIPT_TYPE, WORKER_KEY.public_key)


REFUSED_TARGETS = [
    TARGET + "x",
    TARGET[:-1],
    TARGET + "&nonce=" + NONCE,
    TARGET.replace("receipt?", "receipt/?"),
    TARGET.replace("/v1/", "/v2/"),
    TARGET.replace("nonce=", "Nonce="),
    TARGET + "\n",
    f"http://{RECEIPT_HOST}/",
]


@pytest.mark.parametrize("target", REFUSED_TARGETS)
def test_only_the_one_question_is_answered(target):
    assert issue(target) is None


def test_only_get_is_answered():
    assert issue(method="POST") is None


OTHER_KEY = SigningKey.generate()
REFUSED_PROOFS = {
    "another key": proof(key=OTHER_KEY.public_key),
    "another nonce": proof(signed=SIGNATURE_CONTEXT + b"m" * 43),
    "no context": proof(signed=NONCE.encode()),
    "another's signature": proof(signature=OTHER_KEY.sign(SIGNATURE_CONTEXT + NONCE.encode())),
    "a short key": proof(key=WORKER_KEY.public_key[:-1]),
    "a long key": proof(key=WORKER_KEY.public_key + b"x"),
    "a short signature": proof(signature=b"x"),
    "nothing": http.Headers([(b"X", b"y")]),
    "no base64": http.Headers([(KEY_HEADER.encode(), b"!"), (SIGNATURE_HEADER.encode(), b"!")]),
}


@pytest.mark.parametrize("why", REFUSED_PROOFS)
def test_a_proof_that_does_not_hold_gets_nothing(why):
    assert issue(headers=REFUSED_PROOFS[why]) is None


@pytest.mark.parametrize(
    ("target", "own"),
    [
        (TARGET, True),
        (f"http://{RECEIPT_HOST}/", True),
        (f"http://{RECEIPT_HOST}.evil.example/", False),
        (f"http://{RECEIPT_HOST}@evil.example/", False),
        (f"http://{RECEIPT_HOST}:80/", False),
        (f"https://{RECEIPT_HOST}/", False),
        (f"http://evil.example/http://{RECEIPT_HOST}/", False),
    ],
)
def test_the_own_name_is_recognised_exactly(target, own):
    assert is_own_target(RequestHead("GET", target)) is own


def test_the_lease_question_is_one_target():
    assert asks_for_lease(RequestHead("GET", f"http://{RECEIPT_HOST}/v1/lease"))
    assert not asks_for_lease(RequestHead("POST", f"http://{RECEIPT_HOST}/v1/lease"))
    assert not asks_for_lease(RequestHead("GET", f"http://{RECEIPT_HOST}/v1/lease?x"))


@pytest.mark.parametrize(
    "target", ["/v1/receipt?nonce=x", "/", "/v1/lease", f"/v1/receipt?nonce={NONCE}"]
)
async def test_the_own_name_is_never_resolved_or_dialled(tmp_path, target):
    async with chaos(tmp_path) as world:
        asked = []
        resolver = world.core.resolver

        class Watching:
            async def resolve(self, host, port, asker=""):
                asked.append(host)
                return await resolver.resolve(host, port)

            def close(self):
                resolver.close()

        world.core.resolver = Watching()
        reply = await world.harness.send(
            f"GET http://{RECEIPT_HOST}{target} HTTP/1.1\r\nHost: {RECEIPT_HOST}\r\n"
            f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
        )
        assert reply is not None
        assert (reply.status, target) == (204, "/v1/lease") or 400 <= reply.status < 500
        if reply.body:
            assert json.loads(reply.body)["reason"].startswith("egress.")
        assert asked == []
        world.nothing_was_dialled()


async def test_every_receipt_is_audited_by_its_key_and_all_together_have_a_rate(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("palyra_egress.proxy.core.RECEIPTS_PER_MINUTE", 2)
    async with chaos(tmp_path) as world:
        headers = "".join(f"{name}: {value}\r\n" for name, value in proof().items())
        statuses = []
        for _ in range(3):
            reply = await world.harness.send(
                f"GET {TARGET} HTTP/1.1\r\nHost: {RECEIPT_HOST}\r\n{headers}\r\n".encode()
            )
            assert reply is not None
            statuses.append(reply.status)
        assert statuses == [200, 200, 429]
        receipts = [entry for entry in world.harness.audit() if entry["kind"] == "receipt"]
        assert [e["worker_key_sha256"] for e in receipts] == [WORKER_KEY.thumbprint] * 2
