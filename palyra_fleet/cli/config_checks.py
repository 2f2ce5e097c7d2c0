"""`config validate`, the part that looks into files: what settings name must be usable."""

from collections.abc import Mapping
from pathlib import Path

from palyra_fleet.cli.configuration import Setting
from palyra_fleet.cli.export_arguments import KEYS as EXPORT_KEYS
from palyra_fleet.cli.trace_arguments import KEYS as TRACE_KEYS
from palyra_fleet.exports.receivers import receivers
from palyra_fleet.exports.settings import ExportSettings
from palyra_fleet.settings.file import read_settings
from palyra_fleet.traces.running import check_traces
from palyra_fleet.traces.settings import TraceSettings


def check_files(by_key: Mapping[str, Setting]) -> None:
    """Look at what file and environment say for one command. Raises SettingsFileError."""
    attestors = by_key.get("settings")
    if attestors is not None:
        read_settings(Path(str(attestors.value)))
    _check_exports(_given(by_key, EXPORT_KEYS))
    _check_traces(_given(by_key, TRACE_KEYS))


def _given(by_key: Mapping[str, Setting], keys: tuple[str, ...]) -> dict[str, str]:
    return {key: str(by_key[key].value) for key in keys if key in by_key}


def _check_exports(given: Mapping[str, str]) -> None:
    files = {key: Path(given[key]) for key in given}
    receivers(
        ExportSettings(
            given.get("webhook_url", ""),
            files.get("webhook_secret_file"),
            files.get("webhook_ca"),
            given.get("syslog", ""),
            files.get("syslog_ca"),
        )
    )


def _check_traces(given: Mapping[str, str]) -> None:
    files = {key: Path(given[key]) for key in given}
    check_traces(
        TraceSettings(
            given.get("otlp_endpoint", ""), files.get("otlp_ca"), files.get("otlp_headers_file")
        )
    )
