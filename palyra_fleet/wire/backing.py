"""What stands behind evidence that no enrolled launcher signed alone, as strangers may send it.

`kind` names the attestor that judges it. A backing carries no statement about the worker: that is
the evidence, whose `evidence_kind` must be the same. Sources: RFC 5280 (certificates); in-toto
Statement v1 and DSSE v1.0.2 (provenance); Kubernetes, bound service account tokens (KEP-1205).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_CERTIFICATES = 4
MAX_PROVENANCE_CHARACTERS = 40 * 1024
"""Base64 of the statement. A registration as a whole fits into 64 KiB."""

_Base64 = Annotated[str, StringConstraints(max_length=12 * 1024)]
_Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
_Jwt = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$", max_length=8192),
]


class _Backing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class X509Backing(_Backing):
    """A machine's certificate and its intermediates, leaf first, each base64 of DER."""

    kind: Literal["x509pop"] = "x509pop"
    chain: tuple[_Base64, ...] = Field(min_length=1, max_length=MAX_CERTIFICATES)


class JoinTokenBacking(_Backing):
    """A token that an operator minted for one worker: 43 characters of base64url."""

    kind: Literal["join_token"] = "join_token"
    token: _Token = Field(repr=False)


class ServiceAccountBacking(_Backing):
    """A projected service account token: a JWT in compact form."""

    kind: Literal["k8s_psat"] = "k8s_psat"
    token: _Jwt = Field(repr=False)


class ProvenanceSignature(BaseModel):
    """DSSE leaves `keyid` free, and lets it be absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    keyid: Annotated[str, StringConstraints(max_length=512)] = ""
    sig: Annotated[str, StringConstraints(max_length=1024)]


class ProvenanceEnvelope(BaseModel):
    """A DSSE envelope as builders write it. Base64 may be standard or URL-safe; what the standard
    does not name is ignored, as it asks."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    payloadType: Annotated[str, StringConstraints(max_length=128)]  # noqa: N815 (wire name)
    payload: Annotated[str, StringConstraints(max_length=MAX_PROVENANCE_CHARACTERS)]
    signatures: Annotated[tuple[ProvenanceSignature, ...], Field(min_length=1, max_length=8)]


class ProvenanceBacking(_Backing):
    """How the worker's image was built, as its builder signed it."""

    kind: Literal["oci_dsse"] = "oci_dsse"
    provenance: ProvenanceEnvelope


Backing = Annotated[
    X509Backing | JoinTokenBacking | ServiceAccountBacking | ProvenanceBacking,
    Field(discriminator="kind"),
]
EvidenceKind = Literal["launcher", "x509pop", "join_token", "k8s_psat", "oci_dsse"]
