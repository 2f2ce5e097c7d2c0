"""The durable spool of signed evidence: what the proxy saw, until the fleet has taken it.

Each violation becomes one DSSE envelope over a `ViolationPayload`, numbered and chained per proxy
(`previous_sha256` is the SHA-256 of the previous payload's bytes), written and fsynced before the
refusal is answered. Delivery is at least once; `acknowledge` remembers how far the fleet has it.
After a restart everything not acknowledged is pending again, and its workers are to be blocked
before the first connection is taken.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from palyra_egress.errors import OperatorMustAct
from palyra_egress.request import EgressRequest
from palyra_egress.verdict import Consequence, Verdict
from palyra_fleet.wire.dsse import (
    VIOLATION_TYPE,
    DsseEnvelope,
    EnvelopeRefused,
    open_envelope,
    seal,
)
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ViolationPayload

TARGET_CUT_AT: Final = 600
"""Characters of a target that evidence keeps; one of this length may have been cut."""
_GENESIS_SHA256 = "0" * 64


class SpoolUnavailable(OperatorMustAct):
    """The spool cannot be written or read. The proxy must refuse."""


@dataclass(frozen=True, slots=True)
class SpooledEvidence:
    """One envelope with what the proxy needs of it without opening it again."""

    seq: int
    worker_id: str
    quarantines: bool
    envelope: DsseEnvelope


@dataclass(frozen=True, slots=True)
class Violation:
    """What the core knows about a violation; the spool adds proxy, number and chain."""

    worker_id: str
    lease_id: str
    fence: int
    reason: str
    quarantines: bool
    strike_limit: int
    strike_window_ms: int
    rule_id: str | None
    policy_file: str | None
    policy_line: int | None
    policy_digest: str
    fingerprint: str
    target: str
    decision_id: str
    at_unix_ms: int


def violation_of(
    verdict: Verdict, request: EgressRequest, decision_id: str, at_unix_ms: int
) -> Violation:
    """The violation that a refusal is."""
    who = request.requester
    return Violation(
        worker_id=who.worker_id,
        lease_id=who.lease_id,
        fence=who.fence,
        reason=verdict.reason.value,
        quarantines=verdict.consequence is Consequence.QUARANTINE,
        strike_limit=verdict.strike_limit,
        strike_window_ms=verdict.strike_window_ms,
        rule_id=verdict.rule_id,
        policy_file=verdict.policy_file,
        policy_line=verdict.line,
        policy_digest=verdict.policy_digest,
        fingerprint=verdict.fingerprint,
        target=f"{request.method} {request.url}",
        decision_id=decision_id,
        at_unix_ms=at_unix_ms,
    )


class EvidenceSpool:
    """One proxy's spool: a file of envelopes and a file that says how far they are delivered."""

    def __init__(self, directory: Path, proxy_id: str, key: SigningKey) -> None:
        self._spool = directory / "evidence.jsonl"
        self._mark = directory / "evidence.delivered"
        self._proxy_id = proxy_id
        self._key = key
        self._pending: list[SpooledEvidence] = []
        self._seq = 0
        self._previous_sha256 = _GENESIS_SHA256
        self._descriptor = -1
        self._broken = False

    @classmethod
    def open(cls, directory: Path, proxy_id: str, key: SigningKey) -> Self:
        """Open or create the spool and read what is pending. Raises SpoolUnavailable."""
        spool = cls(directory, proxy_id, key)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            spool._descriptor = os.open(spool._spool, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            spool._read_back()
        except OSError as error:
            raise SpoolUnavailable(f"{directory}: {error}") from error
        return spool

    @property
    def pending(self) -> tuple[SpooledEvidence, ...]:
        """Everything the fleet has not acknowledged, oldest first."""
        return tuple(self._pending)

    @property
    def head_seq(self) -> int:
        """The number of the newest evidence; 0 if there is none."""
        return self._seq

    @property
    def broken(self) -> bool:
        return self._broken

    def append(self, violation: Violation) -> SpooledEvidence:
        """Sign, chain, write and fsync one violation. Raises SpoolUnavailable."""
        payload = ViolationPayload(
            proxy_id=self._proxy_id,
            seq=self._seq + 1,
            previous_sha256=self._previous_sha256,
            worker_id=violation.worker_id,
            lease_id=violation.lease_id,
            fence=violation.fence,
            reason=violation.reason,
            consequence="quarantine" if violation.quarantines else "strike",
            strike_limit=violation.strike_limit,
            strike_window_ms=violation.strike_window_ms,
            rule_id=violation.rule_id,
            policy_file=violation.policy_file,
            policy_line=violation.policy_line,
            policy_digest=violation.policy_digest,
            fingerprint=violation.fingerprint,
            target=violation.target[:TARGET_CUT_AT],
            decision_id=violation.decision_id,
            at_unix_ms=violation.at_unix_ms,
        )
        encoded = payload.model_dump_json().encode()
        envelope = seal(self._key, VIOLATION_TYPE, encoded)
        evidence = SpooledEvidence(payload.seq, payload.worker_id, violation.quarantines, envelope)
        self._write(envelope.model_dump_json().encode() + b"\n")
        self._seq = payload.seq
        self._previous_sha256 = hashlib.sha256(encoded).hexdigest()
        self._pending.append(evidence)
        return evidence

    def acknowledge(self, seq: int) -> None:
        """The fleet holds everything up to `seq`; remember it durably. Raises SpoolUnavailable."""
        self._pending = [evidence for evidence in self._pending if evidence.seq > seq]
        self._write_mark(seq)

    def rewind(self, seq: int) -> bool:
        """The fleet holds less than it had acknowledged (it was restored from a backup): everything
        after `seq` is pending again. False when that changes nothing. Raises SpoolUnavailable."""
        if seq >= self._delivered_seq():
            return False
        self._write_mark(seq)
        self._pending, self._seq, self._previous_sha256 = [], 0, _GENESIS_SHA256
        try:
            self._read_back()
        except OSError as error:
            self._broken = True
            raise SpoolUnavailable(f"{self._spool}: {error.strerror}") from error
        return True

    def _write_mark(self, seq: int) -> None:
        temporary = self._mark.with_suffix(".new")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump({"seq": seq}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._mark)
        except OSError as error:
            raise SpoolUnavailable(f"{self._mark}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; nothing more is taken. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        self._broken = True
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, line: bytes) -> None:
        if self._broken:
            raise SpoolUnavailable(f"{self._spool}: the spool failed earlier")
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(0, "the disk took only a part of a line")
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._broken = True
            raise SpoolUnavailable(f"{self._spool}: {error.strerror}") from error

    def _read_back(self) -> None:
        """Read all envelopes, cutting a torn last line; our own signature must hold on each."""
        data = self._spool.read_bytes()
        whole, newline, torn = data.rpartition(b"\n")
        if torn:
            os.ftruncate(self._descriptor, len(data) - len(torn))
        delivered = self._delivered_seq()
        for number, line in enumerate(whole.split(b"\n") if newline else [], start=1):
            self._take(line, number, delivered)
        if delivered > self._seq:
            raise SpoolUnavailable(
                f"{self._spool}: ends at {self._seq}, but {delivered} was delivered;"
                " restore the file, or enrol the proxy anew with an empty spool directory"
            )

    def _take(self, line: bytes, number: int, delivered: int) -> None:
        try:
            envelope = DsseEnvelope.model_validate_json(line)
            encoded = open_envelope(envelope, VIOLATION_TYPE, self._key.public_key)
            payload = ViolationPayload.model_validate_json(encoded)
        except (ValidationError, EnvelopeRefused) as error:
            raise SpoolUnavailable(
                f"{self._spool}:{number}: not evidence signed by this proxy's key"
            ) from error
        if (payload.seq, payload.previous_sha256) != (self._seq + 1, self._previous_sha256):
            raise SpoolUnavailable(
                f"{self._spool}:{number}: does not follow the line before it; evidence is missing"
            )
        self._seq = payload.seq
        self._previous_sha256 = hashlib.sha256(encoded).hexdigest()
        if payload.seq > delivered:
            quarantines = payload.consequence == "quarantine"
            self._pending.append(
                SpooledEvidence(payload.seq, payload.worker_id, quarantines, envelope)
            )

    def _delivered_seq(self) -> int:
        try:
            return int(json.loads(self._mark.read_text(encoding="ascii"))["seq"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError) as error:
            raise SpoolUnavailable(f"{self._mark}: not a delivery mark") from error
