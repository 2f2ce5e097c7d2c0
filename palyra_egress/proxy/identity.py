"""Reading the proxy credentials of a request: Basic, `lease id:egress secret`. Pure.

The header is removed before anything is forwarded, whatever it held. A malformed header is the same
as none: the caller answers 407. Source: RFC 7617, RFC 9110 section 11.7.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field

_FORM = re.compile(
    r"(?P<lease>[0-7][0-9A-HJKMNP-TV-Z]{25}):(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ProxyCredentials:
    """What a client sent: not yet verified. The secret never shows in a repr."""

    lease_id: str
    secret: str = field(repr=False)


def parse_proxy_credentials(values: list[str]) -> ProxyCredentials | None:
    """The credentials of the `Proxy-Authorization` values, or None when absent or malformed."""
    if len(values) != 1:
        return None
    scheme, _, encoded = values[0].strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return lease_credentials(text)


def lease_credentials(text: str) -> ProxyCredentials | None:
    """The credentials written as `lease id:egress secret`, or None where they have another form."""
    match = _FORM.fullmatch(text)
    return ProxyCredentials(match["lease"], match["secret"]) if match else None
