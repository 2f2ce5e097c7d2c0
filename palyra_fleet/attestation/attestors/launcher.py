"""`launcher`: an enrolled supervisor measured the program, started it, and says so, signed.

The identity is the launcher's to give, but never one that another attestor makes: those begin with
the attestor's name. `enrolled_signer` is shared with kinds that rest on a launcher as well. Pure.
"""

from dataclasses import replace
from functools import partial
from typing import Final, get_args

from palyra_fleet.attestation.attestor import OpenedEvidence, TrustedKeys, open_statement, refused
from palyra_fleet.refusals import Refusal
from palyra_fleet.wire.backing import EvidenceKind
from palyra_fleet.wire.keys import signature_is_valid
from palyra_fleet.wire.models import RegisterRequest

_MADE_BY_OTHERS: Final = tuple(f"{kind}:" for kind in get_args(EvidenceKind) if kind != "launcher")


class LauncherAttestor:
    """Evidence that an enrolled launcher signed, with nothing else behind it."""

    kind: Final = "launcher"

    def open(
        self, request: RegisterRequest, keys: TrustedKeys, now_unix_ms: int
    ) -> OpenedEvidence | Refusal:
        del now_unix_ms
        return open_launched(request, keys, self.kind)

    def claim(self, request: RegisterRequest, now_unix_ms: int) -> Refusal | None:
        del request, now_unix_ms
        return None


def open_launched(
    request: RegisterRequest, keys: TrustedKeys, kind: EvidenceKind
) -> OpenedEvidence | Refusal:
    """Evidence of this kind that an enrolled launcher signed for the key that asks."""
    signatures = request.evidence.signatures
    launcher = keys.launchers.get(signatures[0].keyid) if len(signatures) == 1 else None
    if launcher is None:
        return refused("the evidence is not signed by an enrolled launcher")
    opened = open_statement(
        request, kind, partial(signature_is_valid, launcher), lambda said: said.evidence_identity
    )
    if isinstance(opened, Refusal):
        return opened
    if opened.attestation.evidence_identity.startswith(_MADE_BY_OTHERS):
        return refused("the evidence has an identity that only another attestor may give")
    return replace(opened, launcher_sha256=signatures[0].keyid)
