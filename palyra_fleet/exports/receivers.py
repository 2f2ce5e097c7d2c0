"""Makes the receivers of events out of the operator's settings, with the files they name."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from palyra_fleet.exports.receiver import Receiver
from palyra_fleet.exports.settings import (
    SYSLOG_TLS_PORT,
    SYSLOG_UDP_PORT,
    ExportSettings,
    ExportSettingsRefused,
)
from palyra_fleet.exports.syslog import DatagramSyslog, TlsSyslog
from palyra_fleet.exports.trust import client_context
from palyra_fleet.exports.webhook import SecretFileError, Webhook, read_secrets
from palyra_fleet.trusted_files import UntrustedFile


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
    except UntrustedFile as error:
        raise ExportSettingsRefused(f"{setting}: {error}") from None
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        text = f"{setting}: {ca_file}: expected certificates (PEM) that can be used"
        raise ExportSettingsRefused(text) from None
