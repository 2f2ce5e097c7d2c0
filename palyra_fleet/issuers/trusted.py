"""TrustedIssuer: one issuer of tokens as the settings name it, and where its keys come from. Pure.

Keys come from a file that somebody keeps, or from the issuer itself (discovery), whose address
must then be `https` and whose certificate is verified.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

LEEWAY_S: Final = 60
MOST_LEEWAY_S: Final = 300
LONGEST_LIFE_S: Final = 3600
MOST_LIFE_S: Final = 24 * 3600
EXPECTED_URL: Final = "expected https://HOST[/PATH], without user, query and fragment"


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """`url` is what tokens say as `iss`, byte by byte. `authorized_parties` are the clients whose
    tokens count (`azp`); empty: only our own where a token is for others as well. `jwks_file` None:
    discovery at `url`, whose certificate is verified with `ca_file` (None: the public roots)."""

    name: str
    url: str
    audience: str
    jwks_file: Path | None = None
    ca_file: Path | None = None
    leeway_s: int = LEEWAY_S
    longest_life_s: int = LONGEST_LIFE_S
    authorized_parties: tuple[str, ...] = ()


def checked_https(text: str) -> str:
    """An address of an issuer, or one that it names. Raises ValueError."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(EXPECTED_URL) from None
    plain = text.isascii() and text.isprintable() and " " not in text and "\\" not in text
    if not whole or not plain or "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(EXPECTED_URL)
    return text
