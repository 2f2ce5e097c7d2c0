"""The settings of traces: for the programs that serve, the fleet's and the proxy's."""

import argparse
from pathlib import Path
from typing import Final

from palyra_fleet.cli.argument_types import add_ca_file, checked
from palyra_fleet.traces.settings import (
    ALL,
    TraceSettings,
    checked_endpoint,
    checked_ratio,
)

KEYS: Final[tuple[str, ...]] = ("otlp_endpoint", "otlp_ca", "otlp_headers_file", "trace_ratio")


def add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "traces", "OpenTelemetry; see docs/how-to/follow-a-request-through-traces.md"
    )
    group.add_argument(
        "--otlp-endpoint",
        type=checked(checked_endpoint),
        metavar="URL",
        help="where spans go, as OTLP over HTTP: the whole address, https, or http to loopback",
    )
    add_ca_file(group, "--otlp-ca")
    group.add_argument(
        "--otlp-headers-file",
        type=Path,
        metavar="FILE",
        help="what the receiver wants to see, as `Name: value`, one a line; mode 600",
    )
    group.add_argument(
        "--trace-ratio",
        type=checked(checked_ratio),
        default=ALL,
        metavar="SHARE",
        help="which share is traced, from 0 to 1; violations always are (default 1.0)",
    )


def traces_of(arguments: argparse.Namespace) -> TraceSettings:
    return TraceSettings(
        arguments.otlp_endpoint or "",
        arguments.otlp_ca,
        arguments.otlp_headers_file,
        arguments.trace_ratio,
    )
