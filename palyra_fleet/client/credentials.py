"""Who calls: a key that signs every request, or an operator's bearer token.

`ProofCredentials` proves possession of a worker's or proxy's key with the `Palyra-Proof` header;
`TokenCredentials` sends `Authorization: Bearer`. The `repr` of either shows no secret.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.request_proof import HEADER, prove


@dataclass(frozen=True, slots=True)
class ProofCredentials:
    """Signs each request with one key; `clock` gives Unix milliseconds."""

    key: SigningKey
    clock: Callable[[], int] = field(default=now_unix_ms, repr=False)

    def headers(self, method: str, target: str, body: bytes) -> Mapping[str, str]:
        return {HEADER: prove(self.key, method, target, body, self.clock())}


@dataclass(frozen=True, slots=True)
class TokenCredentials:
    """An operator's token."""

    token: str = field(repr=False)

    def headers(self, method: str, target: str, body: bytes) -> Mapping[str, str]:
        del method, target, body
        return {"Authorization": f"Bearer {self.token}"}
