"""`oci_dsse`: a configured builder says how the worker's image was built.

An enrolled launcher signs the evidence, as with `launcher`; the provenance stands in for enrolled
image digests. It is an in-toto Statement v1 with a SLSA v1 predicate in a DSSE envelope, signed by
one of the configured builder keys; its builder id must be configured and one of its subjects must
be the image of the evidence. Build and artifact digests are compared with reference values as ever.
Provenance does not end: take a builder's key or id out of the settings to stop trusting it. Pure.
Sources: DSSE v1.0.2; in-toto attestation framework v1 (Statement); SLSA provenance v1.
"""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from palyra_fleet.attestation.attestor import OpenedEvidence, TrustedKeys, parse, refused
from palyra_fleet.attestation.attestors.launcher import open_launched
from palyra_fleet.refusals import Refusal
from palyra_fleet.wire.backing import ProvenanceBacking, ProvenanceEnvelope
from palyra_fleet.wire.dsse import VerifiedPayload, pre_authentication_encoding
from palyra_fleet.wire.models import RegisterRequest
from palyra_fleet.wire.signatures import is_signed_by

IN_TOTO_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
_Uri = Annotated[str, StringConstraints(min_length=1, max_length=2048)]


class _Model(BaseModel):
    """Consumers of in-toto statements must ignore fields they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Subject(_Model):
    digest: dict[str, str]


class _Builder(_Model):
    id: _Uri


class _RunDetails(_Model):
    builder: _Builder


class _Predicate(_Model):
    run_details: _RunDetails = Field(alias="runDetails")


class _Statement(_Model):
    statement_type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = Field(alias="predicateType")
    subject: tuple[_Subject, ...] = Field(min_length=1, max_length=1024)
    predicate: _Predicate


class ProvenanceAttestor:
    """Admits images that one of these builders built."""

    kind: Final = "oci_dsse"

    def __init__(
        self, builder_keys: Sequence[PublicKeyTypes], builder_ids: Collection[str]
    ) -> None:
        self._keys = tuple(builder_keys)
        self._ids = frozenset(builder_ids)

    def open(
        self, request: RegisterRequest, keys: TrustedKeys, now_unix_ms: int
    ) -> OpenedEvidence | Refusal:
        del now_unix_ms
        backing = request.backing
        if not isinstance(backing, ProvenanceBacking):
            return refused("the evidence comes without provenance")
        opened = open_launched(request, keys, self.kind)
        if isinstance(opened, Refusal):
            return opened
        statement = self._statement(backing.provenance)
        if isinstance(statement, Refusal):
            return statement
        if statement.predicate.run_details.builder.id not in self._ids:
            return refused("the provenance names a builder that nobody configured")
        image = opened.attestation.image_digest_sha256
        if image not in {subject.digest.get("sha256") for subject in statement.subject}:
            return refused("the provenance is about another image")
        return replace(opened, image_vouched=True)

    def claim(self, request: RegisterRequest, now_unix_ms: int) -> Refusal | None:
        del request, now_unix_ms
        return None

    def _statement(self, envelope: ProvenanceEnvelope) -> _Statement | Refusal:
        if envelope.payloadType != IN_TOTO_TYPE:
            return refused(f"the provenance is not of payload type {IN_TOTO_TYPE}")
        try:
            payload = _base64(envelope.payload)
            signatures = [_base64(signature.sig) for signature in envelope.signatures]
        except ValueError:
            return refused("the provenance is not base64")
        message = pre_authentication_encoding(IN_TOTO_TYPE, payload)
        signed = any(
            is_signed_by(key, signature, message) for key in self._keys for signature in signatures
        )
        if not signed:
            return refused("the provenance is not signed by a configured builder")
        statement = parse(_Statement, VerifiedPayload(payload))
        if statement is None:
            return refused(f"the provenance is not a {STATEMENT_TYPE} with {PREDICATE_TYPE}")
        return statement


def _base64(text: str) -> bytes:
    """Standard or URL-safe, as DSSE allows. Raises ValueError."""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
