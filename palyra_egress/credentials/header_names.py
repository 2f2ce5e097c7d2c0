"""Which request headers may carry a bound secret. Pure.

`authorization*`, `x-*`, `*-token`, `*-api-key`, `api-key`, `cookie`: headers whose whole purpose is
to say who asks. Never: what frames, routes or describes a message, and what ends at this proxy,
because a value there would change what the request means to somebody on its way.
Sources: RFC 9110 sections 7 and 11.6, RFC 9112 section 9.
"""

import re
from typing import Final

from palyra_fleet.nearest_word import nearest

EXPECTED_HEADER: Final = "authorization*, x-*, *-token, *-api-key, api-key or cookie"
MAX_HEADER_NAME: Final = 64
_MAY_CARRY: Final = "authorization[a-z0-9-]*|x-[a-z0-9-]+|[a-z0-9-]+-token|[a-z0-9-]+-api-key"
_NEVER_STARTS: Final = (
    "connection",
    "content-",
    "host",
    "if-",
    "keep-alive",
    "palyra-",
    "proxy-",
    "sec-",
    "transfer-",
    "upgrade",
    "x-forwarded-",
    "x-palyra-",
)
HEADER_PATTERN: Final = f"(?:{_MAY_CARRY}|api-key|cookie)"
"""Names in lower case; which of them never carry a secret is for `header_problem` to say."""
_HEADER: Final = re.compile(HEADER_PATTERN, re.ASCII)
_USUAL: Final = ("authorization", "api-key", "cookie", "private-token", "x-api-key")


def header_problem(name: str) -> str | None:
    """Why this header (in lower case) may not carry a secret, or None."""
    if name.startswith(_NEVER_STARTS):
        return "frames or routes a message, or ends at the proxy"
    if len(name) > MAX_HEADER_NAME:
        return f"is longer than {MAX_HEADER_NAME} characters"
    return None if _HEADER.fullmatch(name) is not None else "is no header for credentials"


def usual_header(name: str) -> str | None:
    """The header that was probably meant."""
    return nearest(name, _USUAL)
