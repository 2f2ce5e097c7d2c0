"""What a refused worker sees: one answer per reason, the same over every lane. Pure.

The status phrase carries the code (`403 Palyra: egress.host_not_allowed`) because many clients show
nothing else; `Proxy-Status` (RFC 9209) carries it for machines; the body is problem+json (RFC 9457)
with the decision id under which the audit log holds the details. Nothing of the inside is told: no
address, no resolver error, no rule.
"""

import json
from dataclasses import dataclass

from palyra_egress.reasons import Reason, row

PROXY_NAME = "palyra-egress"
REFUSED = "palyra:"
"""How the phrase of a refusal begins, in small letters; a server's never does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer: status, phrase, headers in order, body."""

    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def to_bytes(self) -> bytes:
        """The answer as HTTP/1.1 bytes."""
        lines = [f"HTTP/1.1 {self.status} {self.phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def refuse(reason: Reason, decision_id: str, *, close: bool) -> Answer:
    """The refusal for `reason`. `close` says that the connection ends after it."""
    entry = row(reason)
    problem = {
        "type": f"urn:palyra:reason:{reason.value}",
        "title": entry.title,
        "status": entry.http_status,
        "detail": entry.hint or entry.title,
        "reason": reason.value,
        "decision_id": decision_id,
    }
    body = (json.dumps(problem) + "\n").encode()
    error = f"; error={entry.proxy_status_error}" if entry.proxy_status_error else ""
    headers = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Proxy-Status", f'{PROXY_NAME}{error}; details="{reason.value}"'),
        ("X-Palyra-Decision", decision_id),
    ]
    if entry.http_status == 407:
        headers.append(("Proxy-Authenticate", 'Basic realm="palyra lease"'))
    if entry.http_status == 429:
        headers.append(("Retry-After", "1"))
    if close:
        headers.append(("Connection", "close"))
    return Answer(entry.http_status, f"Palyra: {reason.value}", tuple(headers), body)
