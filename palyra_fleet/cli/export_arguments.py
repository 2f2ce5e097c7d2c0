"""The settings of exported events: for `palyra-fleet serve` and `palyra-egress up`."""

import argparse
from pathlib import Path
from typing import Final

from palyra_fleet.cli.argument_types import add_ca_file, checked
from palyra_fleet.exports.settings import (
    ExportSettings,
    checked_syslog,
    checked_url,
)

KEYS: Final = ("webhook_url", "webhook_secret_file", "webhook_ca", "syslog", "syslog_ca")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "export", "the fleet's events, to a SIEM; see docs/how-to/send-events-to-your-siem.md"
    )
    group.add_argument(
        "--webhook-url",
        type=checked(checked_url),
        metavar="URL",
        help="where events go as signed requests (Standard Webhooks); https, or http to loopback",
    )
    group.add_argument(
        "--webhook-secret-file",
        type=Path,
        metavar="FILE",
        help="what signs them: whsec_ and base64, one a line, mode 600; read again each time",
    )
    add_ca_file(group, "--webhook-ca")
    group.add_argument(
        "--syslog",
        type=checked(checked_syslog),
        metavar="URL",
        help="where events go as RFC 5424: tls://HOST:PORT, unix:///PATH, udp://LOOPBACK:PORT",
    )
    add_ca_file(group, "--syslog-ca")


def exports_of(arguments: argparse.Namespace) -> ExportSettings:
    return ExportSettings(
        arguments.webhook_url or "",
        arguments.webhook_secret_file,
        arguments.webhook_ca,
        arguments.syslog or "",
        arguments.syslog_ca,
    )
