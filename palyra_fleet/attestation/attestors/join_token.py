"""`join_token`: an operator minted a token for one worker. For development.

The evidence is signed by the worker's own key, so digests are the worker's word; the token says
only that whoever holds it was let in by an operator, once. One text answers every fault of a token,
so that probing teaches nothing.
"""

from dataclasses import replace
from typing import Final

from palyra_fleet.attestation.attestor import (
    OpenedEvidence,
    TrustedKeys,
    open_own_word,
    refused,
    request_key,
)
from palyra_fleet.attestation.join_tokens import REGISTER, JoinTokenBook
from palyra_fleet.refusals import Refusal
from palyra_fleet.wire.backing import JoinTokenBacking
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.labels import sorted_labels
from palyra_fleet.wire.models import RegisterRequest

_NOT_GOOD: Final = "the join token is unknown, used by another key, over or taken back"


class JoinTokenAttestor:
    """Admits whoever shows a token of the book first."""

    kind: Final = "join_token"

    def __init__(self, book: JoinTokenBook) -> None:
        self.book = book

    def open(
        self, request: RegisterRequest, keys: TrustedKeys, now_unix_ms: int
    ) -> OpenedEvidence | Refusal:
        del keys
        backing = request.backing
        if not isinstance(backing, JoinTokenBacking):
            return refused("the evidence comes without a join token")
        key_sha256 = thumbprint_sha256(request_key(request))
        token = self.book.find(backing.token, key_sha256, REGISTER, now_unix_ms)
        if token is None:
            return refused(_NOT_GOOD)
        unused = token.used_at_unix_ms is None
        end = now_unix_ms + token.session_ms if unused else token.ends_at_unix_ms
        opened = open_own_word(request, self.kind, token.evidence_identity, end)
        if isinstance(opened, Refusal):
            return opened
        return replace(opened, labels=sorted_labels(token.labels))

    def claim(self, request: RegisterRequest, now_unix_ms: int) -> Refusal | None:
        backing = request.backing
        key_sha256 = thumbprint_sha256(request_key(request))
        if isinstance(backing, JoinTokenBacking) and self.book.use(
            backing.token, key_sha256, REGISTER, now_unix_ms
        ):
            return None
        return refused(_NOT_GOOD)
