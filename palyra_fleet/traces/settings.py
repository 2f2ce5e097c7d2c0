"""Where traces go and how many: from the operator's settings alone, checked before anything runs.

A mistake names the setting and what was expected; nothing of a secret is in it. The library reads
variables of its own (`OTEL_…`), which would change this unseen: with one of them set, traces are
refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from palyra_fleet.exports.settings import checked_url
from palyra_fleet.private_files import read_private
from palyra_fleet.settings.errors import SettingsFileError
from palyra_fleet.wire.keys import KeyFileError

EXTRA: Final = "opentelemetry"
EXPECTED_ENDPOINT: Final = (
    "expected the whole address, as https://HOST:4318/v1/traces, or http to a loopback address,"
    " without a query"
)
EXPECTED_RATIO: Final = "expected a number from 0 to 1"
ALL: Final = 1.0
_FOREIGN: Final = "OTEL_"
_MAX_HEADERS_BYTES: Final = 16 * 1024
_HEADER: Final = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*))")
_OURS: Final = frozenset({"host", "content-type", "content-length", "content-encoding"})


class TraceSettingsRefused(SettingsFileError):
    """Traces cannot be exported as the settings say."""


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """What the operator chose; no endpoint, no traces. `ratio` is the share of traces that are
    exported, from 0 to 1; violations always are."""

    endpoint: str = ""
    ca_file: Path | None = None
    headers_file: Path | None = field(default=None, repr=False)
    ratio: float = ALL


NO_TRACES: Final = TraceSettings()


def checked_endpoint(text: str) -> str:
    """A receiver's address. Raises ValueError."""
    try:
        checked_url(text)
    except ValueError:
        raise ValueError(EXPECTED_ENDPOINT) from None
    if "?" in text:
        raise ValueError(EXPECTED_ENDPOINT)
    return text


def checked_ratio(text: str) -> float:
    """A share. Raises ValueError."""
    try:
        ratio = float(text)
    except ValueError:
        raise ValueError(EXPECTED_RATIO) from None
    if not 0 <= ratio <= ALL:  # also where it is no number
        raise ValueError(EXPECTED_RATIO)
    return ratio


def check_alone(settings: TraceSettings, environment: Mapping[str, str]) -> None:
    """Whether these settings are all that says where traces go. Raises TraceSettingsRefused."""
    if not settings.endpoint:
        for name, given in {
            "otlp_ca": settings.ca_file,
            "otlp_headers_file": settings.headers_file,
        }.items():
            if given is not None:
                raise TraceSettingsRefused(f"{name}: there is no receiver; set otlp_endpoint, too")
        return
    for name in sorted(environment):
        if name.startswith(_FOREIGN):
            raise TraceSettingsRefused(
                f"{name}: OpenTelemetry's own variables would change what the settings say;"
                " unset it, and use otlp_endpoint, otlp_ca, otlp_headers_file and trace_ratio"
            )


def read_headers(file: Path) -> dict[str, str]:
    """What goes with every export, such as a receiver's token: `Name: value`, one a line; the file
    is its owner's alone. Raises TraceSettingsRefused."""
    try:
        lines = read_private(file, _MAX_HEADERS_BYTES).decode("ascii").splitlines()
    except (KeyFileError, UnicodeDecodeError) as error:
        raise TraceSettingsRefused(f"otlp_headers_file: {_words(error, file)}") from None
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _HEADER.fullmatch(line.rstrip())
        name = "" if found is None else found[1].lower()
        if found is None or name in _OURS or name in headers:
            raise TraceSettingsRefused(
                f"otlp_headers_file: {file}:{number}: expected `Name: value`, each name once, and"
                f" none of {', '.join(sorted(_OURS))}"
            )
        headers[name] = found[2].rstrip()
    return headers


def _words(error: Exception, file: Path) -> str:
    """What was wrong, without the bytes that were."""
    return str(error) if isinstance(error, KeyFileError) else f"{file}: expected ASCII text"
