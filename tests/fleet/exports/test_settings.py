"""Where events may go: what the operator says, checked before anything runs."""

import ssl
from pathlib import Path

import pytest

from palyra_egress.cli.main import main as egress
from palyra_fleet.cli.main import main as fleet
from palyra_fleet.exports.receivers import receivers
from palyra_fleet.exports.settings import (
    ExportSettings,
    ExportSettingsRefused,
    checked_syslog,
    checked_url,
)
from palyra_fleet.exports.trust import client_context
from tests.fakes.siem import write_secret

HOOK = "https://siem.example/events"


@pytest.mark.parametrize("good", [HOOK, "https://siem.example:8443/a?b=c", "http://127.0.0.1:1/x"])
def test_a_webhook_is_https_or_on_this_machine(good: str) -> None:
    assert checked_url(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "siem.example/events",
        "http://siem.example/events",
        "http://10.0.0.1/",
        "http://localhost/",  # a name: what it means is somebody else's to say
        "http://127.0.0.1.siem.example/",
        "https:///events",
        "https://user:secret@siem.example/",
        "https://siem.example/#x",
        "https://siem.example:99999/",
        "https://siem.example/a b",
        "https://siem.example/\n",
        "file:///etc/passwd",
        "ftp://siem.example/",
    ],
)
def test_nothing_else_is(bad: str) -> None:
    with pytest.raises(ValueError, match="expected https"):
        checked_url(bad)


@pytest.mark.parametrize(
    "good",
    ["tls://siem.example:6514", "tls://siem.example", "unix:///dev/log", "udp://127.0.0.1:514"],
)
def test_syslog_is_tls_or_on_this_machine(good: str) -> None:
    assert checked_syslog(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "udp://siem.example:514",
        "udp://192.0.2.1:514",
        "tcp://127.0.0.1:514",
        "unix://host/dev/log",
        "unix:dev/log",
        "tls://",
        "tls://siem.example/path",
        "tls://user@siem.example",
        "/dev/log",
    ],
)
def test_no_other_syslog_is(bad: str) -> None:
    with pytest.raises(ValueError, match="expected tls"):
        checked_syslog(bad)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ExportSettings(HOOK), "a webhook needs both"),
        (ExportSettings(webhook_secret_file=Path("x")), "a webhook needs both"),
        (ExportSettings(HOOK, Path("nowhere")), "webhook_secret_file: nowhere: does not exist"),
        (ExportSettings(syslog_ca=Path("x")), "there is no syslog receiver"),
        (
            ExportSettings(syslog="tls://siem.example", syslog_ca=Path("x")),
            "syslog_ca: x: expected",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_setting(
    settings: ExportSettings, expected: str
) -> None:
    with pytest.raises(ExportSettingsRefused, match=expected):
        receivers(settings)


def test_roots_that_others_may_write_receive_nothing(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch(0o644)
    ca.chmod(0o664)
    settings = ExportSettings(syslog="tls://siem.example", syslog_ca=ca)
    with pytest.raises(ExportSettingsRefused, match=r"syslog_ca: .*mode 664 lets others write"):
        receivers(settings)


def test_nothing_is_exported_where_nothing_is_said(tmp_path: Path) -> None:
    assert receivers(ExportSettings()) == {}
    both = ExportSettings(HOOK, write_secret(tmp_path / "s"), syslog="unix:///dev/log")
    assert list(receivers(both)) == ["webhook", "syslog"]


def test_tls_of_receivers_verifies_and_writes_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = client_context(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.keylog_filename is None


def test_config_validate_looks_at_the_receivers_of_both_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    for main, verb in ((fleet, "serve"), (egress, "up")):
        file = tmp_path / f"{verb}.toml"
        file.write_text(f'[{verb}]\nwebhook_url = "{HOOK}"\nwebhook_secret_file = "{secret}"\n')
        secret.unlink(missing_ok=True)
        assert main(["config", "validate", "--file", str(file)]) == 2
        assert f"webhook_secret_file: {secret}: does not exist" in capsys.readouterr().err
        write_secret(secret)
        assert main(["config", "validate", "--file", str(file)]) == 0
        file.write_text(f'[{verb}]\nwebhook_url = "http://siem.example/"\n')
        assert main(["config", "validate", "--file", str(file)]) == 2
        assert ":2: " in capsys.readouterr().err
