"""Opens and closes what traces go to; the library is loaded only where traces are asked for."""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Final, cast

from palyra_fleet.traces.settings import (
    EXTRA,
    TraceSettings,
    TraceSettingsRefused,
    check_alone,
)
from palyra_fleet.traces.spans import Spans

CLOSE_WITHIN_S: Final = 2.0
FLEET_SERVICE: Final = "palyra-fleet"
EGRESS_SERVICE: Final = "palyra-egress"


def open_spans(settings: TraceSettings, service: str) -> Spans | None:
    """Where this program's spans go; None where no traces are asked for. `service` is its name.

    Raises TraceSettingsRefused: also where the library is not installed.
    """
    library = _library(settings)
    return None if library is None else cast(Spans, library.OtlpSpans.open(settings, service))


def check_traces(settings: TraceSettings) -> None:
    """Whether traces could go where these settings say. Raises TraceSettingsRefused."""
    library = _library(settings)
    if library is not None:
        library.check(settings)


def _library(settings: TraceSettings) -> ModuleType | None:
    check_alone(settings, os.environ)
    if not settings.endpoint:
        return None
    try:
        return importlib.import_module("palyra_fleet.traces.otlp")
    except ModuleNotFoundError as missing:
        raise TraceSettingsRefused(
            f"otlp_endpoint: traces take the extra `{EXTRA}` (`{missing.name}` is not installed):"
            f" install palyra-egress-fleet[{EXTRA}], or requirements/{EXTRA}.lock"
        ) from None


async def close_spans(spans: Spans | None) -> None:
    """Send what waits, for a moment."""
    if spans is not None:
        await asyncio.to_thread(spans.close, CLOSE_WITHIN_S)


@asynccontextmanager
async def tracing(settings: TraceSettings, service: str) -> AsyncIterator[Spans | None]:
    """Spans go where the settings say until the block ends. Raises TraceSettingsRefused."""
    spans = open_spans(settings, service)
    try:
        yield spans
    finally:
        await close_spans(spans)
