"""The rules of codes, sessions and completions: order, published texts, what consumes what."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from palyra_fleet.identity.messages import BeginPairing, BegunPairing, CompletedPairing
from palyra_fleet.identity.pairing import (
    MAX_CODE_MS,
    MIN_CODE_MS,
    PairingDecision,
    PairingLedger,
    PairingSettings,
    SessionSeed,
)
from palyra_fleet.identity.records import CodeMethod, DevicePairingCodeRecord
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeStatus
from tests.fakes.identity_world import asking
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice, csr_pem

NOW = 1_800_000_000_000
SOURCE = "192.0.2.1"
PIN, TOKEN = "123456", "a-token-of-at-least-16-bytes"
DEVICE = PairingDevice(ulid(1))


class Desk:
    """A ledger whose decisions are applied at once."""

    def __init__(self, **settings: int) -> None:
        self.ledger = PairingLedger(PairingSettings(**settings), b"p" * 32)
        self.now = NOW
        self.count = 0

    def take[A](self, decision: PairingDecision[A]) -> A | NodeRefusal:
        self.ledger.apply(decision)
        return decision.answer

    def mint(
        self, method: CodeMethod = CodeMethod.PIN, code: str = PIN, ttl_ms: int | None = None
    ) -> DevicePairingCodeRecord:
        record = self.take(self.ledger.mint(self.now, method, code, "anna", ttl_ms))
        assert isinstance(record, DevicePairingCodeRecord), record
        return record

    def begin(self, asked: BeginPairing | None = None, source: str = SOURCE) -> Any:
        self.count += 1
        seed = SessionSeed(ulid(1000 + self.count), bytes([self.count % 250 + 1]) * 32, b"c" * 32)
        asked = asked or BeginPairing("node", pin_code=PIN)
        return self.take(self.ledger.begin(self.now, asked, source, seed))

    def complete(self, begun: BegunPairing, proof: str = PIN, **changes: Any) -> Any:
        revoked = changes.pop("device_is_revoked", False)
        asked = DEVICE.completion(begun, proof, **changes)
        return self.take(
            self.ledger.complete(self.now, asked, SOURCE, ulid(9), device_is_revoked=revoked)
        )


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (None, 600_000),
        (0, MIN_CODE_MS),
        (-5, MIN_CODE_MS),
        (29_999, 30_000),
        (30_000, 30_000),
        (86_400_000, 86_400_000),
        (86_400_001, MAX_CODE_MS),
    ],
)
def test_the_life_of_a_code_is_clamped(wanted: int | None, given: int) -> None:
    assert Desk().mint(ttl_ms=wanted).expires_at_unix_ms == NOW + given


def test_codes_are_bounded() -> None:
    desk = Desk(max_pins=2, max_codes=3)
    desk.mint(code="000001")
    desk.mint(code="000002")
    refused = desk.take(desk.ledger.mint(NOW, CodeMethod.PIN, "000003", "anna", None))
    assert isinstance(refused, NodeRefusal)
    assert refused.reason is NodeReason.CODES_FULL
    desk.mint(CodeMethod.QR, TOKEN)
    refused = desk.take(desk.ledger.mint(NOW, CodeMethod.QR, TOKEN + "2", "anna", None))
    assert isinstance(refused, NodeRefusal)


MALFORMED_BEGINS = [
    (BeginPairing("worker", pin_code=PIN), "client_kind must be one of cli, desktop, node, proxy"),
    (BeginPairing("", pin_code=PIN), "client_kind must be one of cli, desktop, node, proxy"),
    (BeginPairing("Node", pin_code=PIN), "client_kind must be one of cli, desktop, node, proxy"),
    (BeginPairing("node"), "method must be a pin_code or a qr_token"),
    (BeginPairing("node", pin_code=PIN, qr_token=TOKEN), "method must be a pin_code or a qr_token"),
    (BeginPairing("node", pin_code=""), "pin_code must be exactly 6 ASCII digits"),
    (BeginPairing("node", pin_code="12345"), "pin_code must be exactly 6 ASCII digits"),
    (BeginPairing("node", pin_code="1234567"), "pin_code must be exactly 6 ASCII digits"),
    (BeginPairing("node", pin_code="١٢٣٤٥٦"), "pin_code must be exactly 6 ASCII digits"),
    (BeginPairing("node", pin_code="12345\n"), "pin_code must be exactly 6 ASCII digits"),
    (BeginPairing("node", qr_token="x" * 15), "qr_token must be 16 to 128 bytes"),
    (BeginPairing("node", qr_token="é" * 65), "qr_token must be 16 to 128 bytes"),
]


@pytest.mark.parametrize(("asked", "text"), MALFORMED_BEGINS)
def test_a_malformed_begin_is_told_and_counts_for_nothing(asked: BeginPairing, text: str) -> None:
    desk = Desk()
    desk.mint()
    for _ in range(50):
        refused = desk.begin(asked)
        assert (refused.status, refused.text) == (NodeStatus.INVALID_ARGUMENT, text)
    assert isinstance(desk.begin(), BegunPairing)


def _wrong_code(desk: Desk) -> BeginPairing:
    return BeginPairing("node", pin_code="654321")


def _wrong_method(desk: Desk) -> BeginPairing:
    desk.mint(CodeMethod.PIN, PIN)
    return BeginPairing("node", qr_token=PIN.rjust(16, "0"))


def _same_text_of_the_other_method(desk: Desk) -> BeginPairing:
    desk.mint(CodeMethod.PIN, TOKEN)  # the same text, minted for the other method
    return BeginPairing("node", qr_token=TOKEN)


def _expired(desk: Desk) -> BeginPairing:
    desk.mint()
    desk.now += 600_000
    return BeginPairing("node", pin_code=PIN)


def _reserved(desk: Desk) -> BeginPairing:
    desk.mint()
    assert isinstance(desk.begin(), BegunPairing)
    return BeginPairing("node", pin_code=PIN)


def _spent(desk: Desk) -> BeginPairing:
    desk.mint()
    assert isinstance(desk.complete(desk.begin()), CompletedPairing)
    return BeginPairing("node", pin_code=PIN)


def _locked_out(desk: Desk) -> BeginPairing:
    for _ in range(5):
        desk.begin(BeginPairing("node", pin_code="654321"))
    desk.mint()
    return BeginPairing("node", pin_code=PIN)  # right, and held back


def _locked_out_everywhere(desk: Desk) -> BeginPairing:
    for number in range(20):
        desk.begin(BeginPairing("node", pin_code="654321"), f"192.0.2.{100 + number}")
    desk.mint()
    return BeginPairing("node", pin_code=PIN)


@pytest.mark.parametrize(
    "arrange",
    [
        _wrong_code,
        _wrong_method,
        _same_text_of_the_other_method,
        _expired,
        _reserved,
        _spent,
        _locked_out,
        _locked_out_everywhere,
    ],
)
def test_whatever_is_wrong_about_a_code_the_answer_is_the_same(
    arrange: Callable[[Desk], BeginPairing],
) -> None:
    desk = Desk()
    asked = arrange(desk)
    before = (dict(desk.ledger.codes), dict(desk.ledger.sessions))
    refused = desk.begin(asked)
    assert refused == NodeRefusal(NodeReason.CODE_MISSING, "pairing code is missing or expired")
    assert refused.status is NodeStatus.FAILED_PRECONDITION
    assert (desk.ledger.codes, desk.ledger.sessions) == before


def test_a_held_back_source_is_judged_again_later_and_others_meanwhile() -> None:
    desk = Desk()
    asked = _locked_out(desk)
    assert isinstance(desk.begin(asked), NodeRefusal)
    desk.now += 30_000
    assert isinstance(desk.begin(asked), BegunPairing)
    other = Desk()
    asked = _locked_out(other)
    assert isinstance(other.begin(asked, "198.51.100.1"), BegunPairing)


def test_a_token_still_pairs_while_pins_are_held_back_everywhere() -> None:
    desk = Desk()
    asked = _locked_out_everywhere(desk)
    desk.mint(CodeMethod.QR, TOKEN)
    assert isinstance(desk.begin(asking("node", CodeMethod.QR, TOKEN)), BegunPairing)
    assert isinstance(desk.begin(asked), NodeRefusal)


def test_the_code_of_an_abandoned_session_comes_back() -> None:
    desk = Desk()
    desk.mint()
    first = desk.begin()
    desk.now += 299_999
    assert isinstance(desk.begin(), NodeRefusal)
    desk.now += 1
    second = desk.begin()
    assert isinstance(second, BegunPairing)
    assert desk.complete(first).text == "pairing verification failed: pairing session has expired"
    assert isinstance(desk.complete(second), CompletedPairing)


def test_a_session_never_outlives_its_code() -> None:
    desk = Desk()
    record = desk.mint(ttl_ms=30_000)
    begun = desk.begin()
    assert begun.expires_at_unix_ms == record.expires_at_unix_ms
    desk.now += 30_000
    assert isinstance(desk.complete(begun), NodeRefusal)


def test_sessions_are_bounded() -> None:
    desk = Desk(max_sessions=1)
    desk.mint(code="000001")
    desk.mint(code="000002")
    assert isinstance(desk.begin(BeginPairing("cli", pin_code="000001")), BegunPairing)
    refused = desk.begin(BeginPairing("cli", pin_code="000002"))
    assert refused.reason is NodeReason.SESSIONS_FULL
    desk.now += 300_000
    assert isinstance(desk.begin(BeginPairing("cli", pin_code="000002")), BegunPairing)


RSA = rsa.generate_private_key(65537, 2048)
MALFORMED = [
    ({"session_id": ""}, "session_id must not be empty"),
    ({"device_id": ""}, "device_id must be a canonical ULID"),
    ({"device_id": "01arz3ndektsv4rrffq69g5fav"}, "device_id must be a canonical ULID"),
    ({"device_id": "8" + ulid(1)[1:]}, "device_id must be a canonical ULID"),
    ({"client_kind": "robot"}, "client_kind must be one of cli, desktop, node, proxy"),
    ({"proof": ""}, "proof must be 1 to 128 bytes"),
    ({"proof": "1" * 129}, "proof must be 1 to 128 bytes"),
    ({"device_signing_public": b""}, "device_signing_public must be 32 bytes"),
    ({"device_signing_public": bytes(33)}, "device_signing_public must be 32 bytes"),
    ({"device_x25519_public": bytes(31)}, "device_x25519_public must be 32 bytes"),
    ({"challenge_signature": bytes(63)}, "challenge_signature must be 64 bytes"),
    ({"challenge_signature": bytes(65)}, "challenge_signature must be 64 bytes"),
    ({"transcript_mac": bytes(31)}, "transcript_mac must be 32 bytes"),
    ({"certificate_signing_request_pem": ""}, "certificate_signing_request_pem must not be empty"),
]
BAD_CSRS = [
    "no PEM",
    DEVICE.csr() + DEVICE.csr(),
    DEVICE.csr().replace("REQUEST", "REQUESTS"),
    DEVICE.csr()[:200] + "A" * 30 + DEVICE.csr()[230:],
    DEVICE.csr() + "x" * 9000,
    csr_pem(RSA),
    csr_pem(Ed25519PrivateKey.generate()),
    csr_pem(ec.generate_private_key(ec.SECP384R1())),
    csr_pem(ec.generate_private_key(ec.SECP256K1())),
]


@pytest.mark.parametrize(("changes", "text"), MALFORMED)
def test_a_malformed_completion_is_told_and_consumes_nothing(
    changes: dict[str, Any], text: str
) -> None:
    desk = Desk()
    desk.mint()
    begun = desk.begin()
    for _ in range(30):
        refused = desk.complete(begun, **changes)
        assert (refused.status, refused.text) == (NodeStatus.INVALID_ARGUMENT, text)
    assert isinstance(desk.complete(begun), CompletedPairing)


@pytest.mark.parametrize("csr", BAD_CSRS, ids=range(len(BAD_CSRS)))
def test_a_certificate_request_that_is_not_good_consumes_nothing(csr: str) -> None:
    desk = Desk()
    desk.mint()
    begun = desk.begin()
    refused = desk.complete(begun, certificate_signing_request_pem=csr)
    assert refused.reason is NodeReason.CSR_INVALID
    assert refused.status is NodeStatus.INVALID_ARGUMENT
    assert isinstance(desk.complete(begun), CompletedPairing)


NOT_CONSUMING = [
    ({"device_is_revoked": True}, "device is revoked"),
    ({"session_id": ulid(77)}, "pairing session was not found"),
    ({"session_id": "not a ULID"}, "pairing session was not found"),
    ({"version": 2}, "protocol version does not match"),
    ({"client_kind": "proxy"}, "client kind does not match"),
]


@pytest.mark.parametrize(("changes", "why"), NOT_CONSUMING)
def test_what_fails_before_the_proof_consumes_nothing(changes: dict[str, Any], why: str) -> None:
    desk = Desk()
    desk.mint()
    begun = desk.begin()
    refused = desk.complete(begun, **changes)
    assert refused.status is NodeStatus.FAILED_PRECONDITION
    assert refused.text == f"pairing verification failed: {why}"
    assert isinstance(desk.complete(begun), CompletedPairing)


STRANGER = X25519PrivateKey.generate().public_key().public_bytes_raw()
CONSUMING = [
    ({"proof": "654321"}, "proof does not match"),
    ({"proof": PIN + " "}, "proof does not match"),
    ({"challenge_signature": bytes(64)}, "challenge signature is not valid"),
    ({"device_signing_public": bytes(32)}, "challenge signature is not valid"),  # small order
    ({"device_x25519_public": bytes(32)}, "device X25519 key is not valid"),
    ({"device_x25519_public": STRANGER}, "transcript MAC does not match"),
    ({"transcript_mac": bytes(32)}, "transcript MAC does not match"),
]


@pytest.mark.parametrize(("changes", "why"), CONSUMING)
def test_a_failed_verification_ends_the_session_and_spends_the_code(
    changes: dict[str, Any], why: str
) -> None:
    desk = Desk()
    desk.mint()
    begun = desk.begin()
    refused = desk.complete(begun, **changes)
    assert refused.text == f"pairing verification failed: {why}"
    assert desk.complete(begun).text.endswith("pairing session was not found")
    assert desk.begin().reason is NodeReason.CODE_MISSING
    assert desk.ledger.requests == {}


def test_the_checks_come_in_the_published_order() -> None:
    """Everything is wrong at first; mending the named fault shows the next one."""
    wrong: dict[str, Any] = {
        "device_is_revoked": True,
        "session_id": ulid(77),
        "version": 2,
        "client_kind": "proxy",
        "proof": "654321",
        "challenge_signature": bytes(64),
        "transcript_mac": bytes(32),
    }
    order = [
        ("device_is_revoked", "device is revoked"),
        ("session_id", "pairing session was not found"),
        ("version", "protocol version does not match"),
        ("client_kind", "client kind does not match"),
        ("proof", "proof does not match"),
        ("challenge_signature", "challenge signature is not valid"),
        ("transcript_mac", "transcript MAC does not match"),
    ]
    for number, (mended, why) in enumerate(order):
        desk = Desk()
        desk.mint()
        begun = desk.begin()
        assert desk.complete(begun, **wrong).text == f"pairing verification failed: {why}", number
        del wrong[mended]


@pytest.mark.parametrize("version", [0, 1])
def test_a_request_without_a_version_is_of_the_first(version: int) -> None:
    desk = Desk()
    desk.mint()
    assert isinstance(desk.complete(desk.begin(), version=version), CompletedPairing)


def test_a_mac_of_another_session_is_refused() -> None:
    desk = Desk()
    desk.mint()
    desk.mint(code="000001")
    one, other = desk.begin(), desk.begin(BeginPairing("node", pin_code="000001"))
    foreign = DEVICE.completion(one, PIN)
    refused = desk.complete(
        other,
        "000001",
        transcript_mac=foreign.transcript_mac,
    )
    assert refused.text.endswith("transcript MAC does not match")


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proof and MAC both go through `hmac.compare_digest`, whole."""
    import hmac  # noqa: PLC0415 (the module that is watched)

    compared: list[int] = []
    real = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        compared.append(len(one))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    desk = Desk()
    desk.mint()
    assert isinstance(desk.complete(desk.begin()), CompletedPairing)
    assert compared == [64, 32]


def test_a_session_shows_none_of_its_secrets() -> None:
    desk = Desk()
    desk.mint()
    desk.begin()
    session = next(iter(desk.ledger.sessions.values()))
    shown = repr(desk.ledger)
    assert session.gateway_secret.hex() not in shown
    assert repr(session.gateway_secret) not in shown
    assert PIN not in repr(dataclasses.replace(session))
