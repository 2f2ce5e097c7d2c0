"""Mirror of approvals/envelope.py: the file stays small and loses nobody's approval."""

import pytest

from palyra_egress.approvals.envelope import (
    MAX_APPROVALS,
    PURPOSE,
    ApprovalPayload,
    TooManyApprovals,
    next_serial,
    read_lines,
    sign_approval,
    with_approval,
)
from palyra_fleet.wire.keys import SigningKey

KEY = SigningKey.generate()


def payload(digest: str, serial: int, approver: str = "ada") -> ApprovalPayload:
    return ApprovalPayload(
        purpose=PURPOSE,
        policy_name="test",
        policy_digest=digest * 64,
        serial=serial,
        approver=approver,
        approved_at_unix_ms=0,
    )


def added(source: bytes, fresh: ApprovalPayload) -> bytes:
    return with_approval(read_lines(source), sign_approval(KEY, fresh), fresh)


def test_the_next_change_takes_the_next_serial_and_a_second_person_the_same() -> None:
    assert next_serial((), "a" * 64) == 1
    source = added(b"", payload("a", 4))
    assert next_serial(read_lines(source), "a" * 64) == 4
    assert next_serial(read_lines(source), "b" * 64) == 5


def test_approvals_of_this_policy_and_the_newest_others_stay() -> None:
    source = b"a line that a person wrote\n"
    for digest, serial, name in (
        ("a", 1, "ada"),
        ("b", 2, "ada"),
        ("b", 2, "ben"),
        ("c", 3, "ada"),
        ("c", 3, "ben"),
        ("c", 3, "ada"),
    ):
        source = added(source, payload(digest, serial, name))
    lines = read_lines(source)
    assert lines[0].text == "a line that a person wrote" and lines[0].envelope is None
    assert len(lines) == 5, "two for b, two for c; a is older, and ada signed c again"
    assert next_serial(lines, "d" * 64) == 4


def test_more_lines_than_anybody_needs_are_refused() -> None:
    with pytest.raises(TooManyApprovals):
        read_lines(b"{}\n" * (MAX_APPROVALS + 1))
