"""The table of node refusals: complete, and spelled as clients know it."""

import string

import pytest

from palyra_fleet.identity.refusals import NodeReason, NodeStatus, refuse


@pytest.mark.parametrize("reason", NodeReason)
def test_every_reason_has_a_row_with_a_status_and_a_text(reason: NodeReason) -> None:
    assert reason.template
    assert 400 <= reason.status.http_status < 600


PUBLISHED = [
    (NodeReason.GATE_NO_CERTIFICATE, {}, NodeStatus.UNAUTHENTICATED,
     "node RPC request is missing a client certificate"),
    (NodeReason.GATE_REVOKED, {}, NodeStatus.PERMISSION_DENIED,
     "node RPC client certificate fingerprint is revoked"),
    (NodeReason.GATE_UNKNOWN, {}, NodeStatus.PERMISSION_DENIED,
     "node RPC client certificate does not map to a paired device"),
    (NodeReason.GATE_OTHER_DEVICE, {}, NodeStatus.PERMISSION_DENIED,
     "node RPC request device_id does not match the authenticated client certificate"),
    (NodeReason.CODE_MISSING, {}, NodeStatus.FAILED_PRECONDITION,
     "pairing code is missing or expired"),
    (NodeReason.CODE_NOT_RESERVED, {}, NodeStatus.FAILED_PRECONDITION,
     "pairing session does not have a reserved code"),
    (NodeReason.VERIFICATION, {"why": "x"}, NodeStatus.FAILED_PRECONDITION,
     "pairing verification failed: x"),
    (NodeReason.SESSION_EMPTY, {}, NodeStatus.INVALID_ARGUMENT, "session_id must not be empty"),
    (NodeReason.NOT_A_ULID, {"field": "device_id"}, NodeStatus.INVALID_ARGUMENT,
     "device_id must be a canonical ULID"),
    (NodeReason.LENGTH, {"field": "challenge_signature", "expected": "64"},
     NodeStatus.INVALID_ARGUMENT, "challenge_signature must be 64 bytes"),
    (NodeReason.REQUEST_UNKNOWN, {}, NodeStatus.NOT_FOUND, "pairing request was not found"),
    (NodeReason.REQUEST_OTHER_DEVICE, {}, NodeStatus.PERMISSION_DENIED,
     "pairing request does not belong to the requested device_id"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "parts", "status", "text"), PUBLISHED)
def test_a_published_text_is_as_it_was(
    reason: NodeReason, parts: dict[str, str], status: NodeStatus, text: str
) -> None:
    refusal = refuse(reason, **parts)
    assert (refusal.status, refusal.text) == (status, text)


def test_client_kinds_are_named_in_the_text() -> None:
    text = refuse(NodeReason.CLIENT_KIND).text
    assert text.startswith("client_kind must be one of ")


def test_the_statuses_are_names_of_grpc() -> None:
    assert all(set(status.value) <= set(string.ascii_uppercase + "_") for status in NodeStatus)
