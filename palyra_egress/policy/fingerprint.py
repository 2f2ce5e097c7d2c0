"""What a verdict was given for, as one digest: who asked for what under which policy.

Input: a canonical request and the digest of the policy. Output: 64 hex digits. Fields are written
with their lengths, so that no two different requests are written alike.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Final

from palyra_egress.request import EgressRequest

NO_FINGERPRINT: Final = "0" * 64


@lru_cache(maxsize=1024)
def _asker_text(worker_id: str, lease_id: str, policy_digest: str) -> str:
    """The part of the text that stays the same from request to request of one worker."""
    return (
        f"{len(worker_id)}:{worker_id},{len(lease_id)}:{lease_id},"
        f"{len(policy_digest)}:{policy_digest},"
    )


def fingerprint(request: EgressRequest, policy_digest: str) -> str:
    """SHA-256 over method, URL with query, worker, lease and policy digest.

    Each field is written as its length in characters, a colon, the field and a comma.
    """
    requester, method, query, url = request.requester, request.method, request.query, request.url
    asker = _asker_text(requester.worker_id, requester.lease_id, policy_digest)
    if query:
        url = f"{url}?{query}"
    text = f"{len(method)}:{method},{len(url)}:{url},{asker}"
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
