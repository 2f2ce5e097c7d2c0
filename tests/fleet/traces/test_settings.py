"""The settings of traces: what is taken, what is refused and in which words."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from palyra_fleet.cli.main import main
from palyra_fleet.cli.parser import make_parser
from palyra_fleet.cli.trace_arguments import traces_of
from palyra_fleet.traces.running import check_traces, open_spans
from palyra_fleet.traces.settings import (
    TraceSettings,
    TraceSettingsRefused,
    check_alone,
    checked_endpoint,
    checked_ratio,
    read_headers,
)

HERE = "http://127.0.0.1:4318/v1/traces"


@pytest.mark.parametrize(
    "url",
    [
        "http://collector.example:4318/v1/traces",  # in clear, and not to this machine
        "http://localhost:4318/v1/traces",
        "https://user:s3cret@collector.example/v1/traces",
        "https://collector.example/v1/traces?key=s3cret",
        "https://collector.example/v1/traces#part",
        "https://",
        "collector.example:4318",
        "grpc://collector.example:4317",
        "https://collector.example:99999/v1/traces",
        "https://collector.example/v1 /traces",
    ],
)
def test_an_address_that_is_not_safe_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="expected the whole address") as refused:
        checked_endpoint(url)
    assert "s3cret" not in str(refused.value)


def test_addresses_that_are_taken() -> None:
    for url in (HERE, "http://[::1]:4318/v1/traces", "https://collector.example/otlp/v1/traces"):
        assert checked_endpoint(url) == url


@pytest.mark.parametrize("text", ["-0.1", "1.01", "nan", "inf", "half", ""])
def test_a_share_is_a_number_from_0_to_1(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 to 1"):
        checked_ratio(text)


def test_what_a_command_line_says() -> None:
    words = ["serve", "--otlp-endpoint", HERE, "--otlp-ca", "ca.pem", "--trace-ratio", "0.25"]
    parsed = make_parser().parse_args(words)
    assert traces_of(parsed) == TraceSettings(HERE, Path("ca.pem"), None, 0.25)
    assert traces_of(make_parser().parse_args(["serve"])) == TraceSettings()
    assert isinstance(parsed, argparse.Namespace)


def test_settings_without_a_receiver_and_variables_of_the_librarys_own_are_refused() -> None:
    for settings, name in (
        (TraceSettings(ca_file=Path("ca.pem")), "otlp_ca"),
        (TraceSettings(headers_file=Path("headers")), "otlp_headers_file"),
    ):
        with pytest.raises(TraceSettingsRefused, match=f"^{name}: there is no receiver"):
            check_alone(settings, {})
    foreign = {"OTEL_SDK_DISABLED": "true"}
    with pytest.raises(TraceSettingsRefused, match=r"^OTEL_SDK_DISABLED: "):
        check_alone(TraceSettings(HERE), foreign)
    check_alone(TraceSettings(), foreign)  # nobody asks for traces


def headers(directory: Path, text: str, mode: int = 0o600) -> Path:
    file = directory / "headers"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_headers_are_read_from_a_file_of_ones_own(tmp_path: Path) -> None:
    file = headers(tmp_path, "Authorization: Bearer t0ken\n\nX-Tenant:  a b \n")
    assert read_headers(file) == {"authorization": "Bearer t0ken", "x-tenant": "a b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Authorization Bearer t0ken\n", ":1: expected `Name: value`"),
        ("X-A: 1\nHost: t0ken\n", ":2: expected"),
        ("X-A: t0ken\nx-a: t0ken\n", ":2: expected"),
        ("X-A:\n", ":1: expected"),
        ("X-A: t0ken\x00\n", ":1: expected"),
        ("X-A: t0kén\n", "expected ASCII text"),
    ],
)
def test_a_bad_line_is_named_and_not_repeated(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TraceSettingsRefused) as refused:
        read_headers(headers(tmp_path, text))
    assert said in str(refused.value)
    assert "t0k" not in str(refused.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceSettingsRefused, match="otlp_headers_file: "):
        read_headers(headers(tmp_path, "X-A: 1\n", 0o644))


def test_what_cannot_be_used_is_refused_before_anything_starts(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("")
    for ca in (empty, tmp_path / "missing.pem"):
        with pytest.raises(TraceSettingsRefused, match=r"^otlp_ca: .*expected certificates"):
            check_traces(TraceSettings("https://collector.example/v1/traces", ca))
    empty.chmod(0o664)
    with pytest.raises(TraceSettingsRefused, match=r"^otlp_ca: .*mode 664 lets others write to it"):
        check_traces(TraceSettings("https://collector.example/v1/traces", empty))
    check_traces(TraceSettings(HERE))
    assert open_spans(TraceSettings(), "palyra-test") is None


def test_a_settings_file_may_say_the_share_as_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(f'[serve]\notlp_endpoint = "{HERE}"\ntrace_ratio = 0.25\n')
    assert main(["config", "validate", "--file", str(file)]) == 0
    assert "2 settings, each good" in capsys.readouterr().err
    file.write_text('[serve]\notlp_ca = "ca.pem"\n')
    assert main(["config", "validate", "--file", str(file)]) == 2
    assert "otlp_ca: there is no receiver" in capsys.readouterr().err


WITHOUT = """
import sys
for name in ("opentelemetry", "requests"):
    sys.modules[name] = None  # as if it were not installed
from palyra_fleet.cli.main import main
sys.exit(main({!r}))
"""


def test_without_the_extra_a_setting_that_asks_for_traces_refuses_the_start(
    tmp_path: Path,
) -> None:
    words = ["serve", "--admin", "127.0.0.1:0", "--otlp-endpoint", HERE]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(words)],
        env={"PALYRA_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "otlp_endpoint: traces take the extra `opentelemetry`" in done.stderr
    assert "requirements/opentelemetry.lock" in done.stderr
