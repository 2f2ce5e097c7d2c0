"""Where events are exported to: from the operator's settings alone, checked before anything runs.

`webhook_receiver` and `syslog_receiver` make the receivers. A mistake names the setting and what
was expected; nothing of a secret is in it.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from palyra_fleet.exports.receiver import Receiver
from palyra_fleet.exports.syslog import DatagramSyslog, TlsSyslog
from palyra_fleet.exports.trust import client_context
from palyra_fleet.exports.webhook import SecretFileError, Webhook, read_secrets
from palyra_fleet.settings_file import SettingsFileError

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


def receivers(settings: ExportSettings) -> dict[str, Receiver]:
    """The receivers by name. Raises ExportSettingsRefused."""
    made: dict[str, Receiver] = {}
    if settings.webhook_url or settings.webhook_secret_file or settings.webhook_ca:
        made["webhook"] = _webhook(settings)
    if settings.syslog:
        made["syslog"] = _syslog(settings)
    elif settings.syslog_ca is not None:
        raise ExportSettingsRefused("syslog_ca: there is no syslog receiver; set syslog, too")
    return made


def _webhook(settings: ExportSettings) -> Webhook:
    if not settings.webhook_url or settings.webhook_secret_file is None:
        raise ExportSettingsRefused(
            "webhook_url and webhook_secret_file: a webhook needs both, or neither"
        )
    try:
        read_secrets(settings.webhook_secret_file)
    except SecretFileError as error:
        raise ExportSettingsRefused(f"webhook_secret_file: {error}") from None
    is_plain = settings.webhook_url.startswith("http:")
    tls = None if is_plain else _trusting(settings.webhook_ca, "webhook_ca")
    return Webhook(settings.webhook_url, settings.webhook_secret_file, tls)


def _syslog(settings: ExportSettings) -> Receiver:
    parts = urlsplit(settings.syslog)
    match parts.scheme:
        case "unix":
            return DatagramSyslog(parts.path)
        case "udp":
            return DatagramSyslog((parts.hostname or "", parts.port or SYSLOG_UDP_PORT))
        case _:
            tls = _trusting(settings.syslog_ca, "syslog_ca")
            return TlsSyslog(parts.hostname or "", parts.port or SYSLOG_TLS_PORT, tls)


def _trusting(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    try:
        return client_context(ca_file)
    except (OSError, ssl.SSLError):
        text = f"{setting}: {ca_file}: expected certificates (PEM) that can be used"
        raise ExportSettingsRefused(text) from None


def _parts(text: str, expected: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is no port
    except ValueError:
        raise ValueError(expected) from None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(expected)
    return parts
