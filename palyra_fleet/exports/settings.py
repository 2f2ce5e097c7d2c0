"""Where events are exported to: from the operator's settings alone, checked before anything runs.

A mistake names the setting and what was expected; nothing of a secret is in it. Pure.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from palyra_fleet.settings.errors import SettingsFileError

EXPECTED_URL: Final = "expected https://HOST/PATH, or http to a loopback address"
EXPECTED_SYSLOG: Final = (
    "expected tls://HOST:PORT, unix:///PATH or udp://ADDRESS:PORT with a loopback address"
)
SYSLOG_TLS_PORT: Final = 6514
SYSLOG_UDP_PORT: Final = 514


class ExportSettingsRefused(SettingsFileError):
    """Events cannot be exported as the settings say."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What the operator chose; empty texts and None where nothing was."""

    webhook_url: str = ""
    webhook_secret_file: Path | None = None
    webhook_ca: Path | None = None
    syslog: str = ""
    syslog_ca: Path | None = None


NO_EXPORTS: Final = ExportSettings()


def checked_url(text: str) -> str:
    """A webhook's address. Raises ValueError."""
    parts = _parts(text, EXPECTED_URL)
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    named = parts.scheme == "https" and bool(parts.hostname)
    if not (plain or named) or parts.username is not None or parts.fragment:
        raise ValueError(EXPECTED_URL)
    return text


def checked_syslog(text: str) -> str:
    """A syslog receiver's address. Raises ValueError."""
    parts = _parts(text, EXPECTED_SYSLOG)
    good = {
        "tls": bool(parts.hostname) and parts.path in {"", "/"},
        "udp": is_loopback(parts.hostname or "") and parts.path in {"", "/"},
        "unix": not parts.netloc and parts.path.startswith("/"),
    }
    if not good.get(parts.scheme, False) or parts.query or parts.username is not None:
        raise ValueError(EXPECTED_SYSLOG)
    return text


def is_loopback(host: str) -> bool:
    """Whether this is a loopback address; a name is not one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(text: str, expected: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is no port
    except ValueError:
        raise ValueError(expected) from None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(expected)
    return parts
