"""Takes a secret out of what a server sends back, whatever spelling it comes in. Pure.

A server that is given a credential may repeat it, in a redirect, a cookie or a debugging header,
and the worker must not read it there. Where the secret, or the header's value that holds it, stands
as it is, it alone is replaced; where it stands in another spelling (`spellings`: base64, hex,
percent, JSON, each once nested; here HTML too), the whole text is. What a server hides on purpose
cannot be found: it knows the secret anyway.
"""

import html
from collections.abc import Iterator, Sequence
from typing import Final

from palyra_egress.credentials.injection import Injected
from palyra_egress.credentials.spellings import folded, spellings, unescaped

REDACTED: Final = b"[redacted]"


def _readings(text: bytes) -> Iterator[bytes]:
    """The text as it stands, with its escapes resolved once and twice, and without HTML's."""
    yield text
    once = unescaped(text)
    if once != text:
        yield once
        yield unescaped(once)
    if b"&" in once:
        yield html.unescape(once.decode("latin-1")).encode("latin-1", errors="replace")


class EchoFilter:
    """Made for one request's credentials, used on its response."""

    __slots__ = ("_patterns", "_values")

    def __init__(self, injected: Sequence[Injected]) -> None:
        texts = {text.reveal().encode() for one in injected for text in (one.value, one.secret)}
        self._values = sorted(texts, key=len, reverse=True)
        self._patterns = {
            pattern for one in injected for pattern in spellings(one.secret.reveal().encode())
        }

    def redacted(self, text: bytes) -> bytes:
        """The text without any of the secrets."""
        for value in self._values:
            text = text.replace(value, REDACTED)
        return REDACTED if self.holds(text) else text

    def holds(self, text: bytes) -> bool:
        """Whether the text has any of the secrets in it, in any spelling."""
        return any(
            pattern in simple
            for simple in map(folded, _readings(text))
            for pattern in self._patterns
        )
