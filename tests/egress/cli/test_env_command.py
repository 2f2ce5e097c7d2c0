"""What `palyra-egress env` prints is read back by real shells, whatever the values hold."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palyra_egress.cli.env_command import FORMS
from palyra_egress.cli.main import main
from palyra_fleet.worker.environment import TABLE

LEASE = "01JQ0000000000000000000000"
SECRET = "s" * 43
NASTY = {
    "QUOTES": 'it\'s "quoted" `twice` \u2018and\u2019 \u201asmart\u201b',
    "DOLLARS": "$HOME $(id) ${PATH} $Env:PATH %PATH% !!",
    "SLASHES": "C:\\new\\table \\' \\\\",
    "SPACES": "  two  spaces ;& | > < * ? [a] {b} ~ #",
    "LINES": "one\ntwo\n",
    "EMPTY": "",
    "DASH": "-n",
    "LETTERS": "čeština 漢字 🦔",
}
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
READS = {
    "sh": ('eval "$(cat "$1")"; exec "$2" -c "$3"', "-c"),
    "fish": ("source $argv[1]; exec $argv[2] -c $argv[3]", "-c"),
    "pwsh": (
        "param($file, $python, $show) Get-Content -Raw $file | Invoke-Expression;"
        " & $python -c $show",
        "-File",
    ),
}


def read_back(shell: str, text: str, folder: Path) -> dict[str, str]:
    """The environment of a program that the real shell starts after reading `text`."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed, so its quoting was not tried")
    file, script = folder / "variables", folder / "script.ps1"
    file.write_text(text, encoding="utf-8")
    code, how = READS[shell]
    script.write_text(code)
    asked = [str(script)] if how == "-File" else [code, *(["sh"] if shell == "sh" else [])]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ftp_proxy": "x",
        "PIP_PROXY": "y",
    }
    done = subprocess.run(
        [program, how, *asked, str(file), sys.executable, SHOW],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("shell", READS)
def test_every_value_survives_the_real_shell_and_what_leads_around_is_gone(
    shell: str, tmp_path: Path
) -> None:
    found = read_back(shell, FORMS[shell](NASTY, ["ftp_proxy", "PIP_PROXY"]), tmp_path)
    kept = {name: found.get(name, "") for name in NASTY}
    assert kept == NASTY
    assert not {"ftp_proxy", "PIP_PROXY"} & found.keys()


@settings(max_examples=15)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), max_size=20))
def test_any_text_survives_sh(values: list[str]) -> None:
    variables = {f"V{number}": value for number, value in enumerate(values)}
    script = f"{FORMS['sh'](variables, ['nothing'])}\nexec '{sys.executable}' -c '{SHOW}'"
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=60, check=True, env={})
    assert {name: json.loads(done.stdout)[name] for name in variables} == variables


def test_an_env_file_holds_one_line_for_each_variable_and_refuses_what_it_cannot_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert FORMS["docker"]({"A": "it's $x", "B": ""}, ["gone"]) == "A=it's $x\nB="
    code = main(["env", "--shell", "docker", *_where("/a\nb")])
    assert code == 2
    assert "has a line break in it" in capsys.readouterr().err


def test_every_row_of_the_table_is_printed_and_node_is_told_to_use_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["env", "--shell", "json", *_where("/ca")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said["set"]) == [row.name for row in TABLE]
    assert said["set"]["NODE_USE_ENV_PROXY"] == "1"
    assert said["set"]["HTTPS_PROXY"] == "http://127.0.0.1:8080"
    assert not set(said["unset"]) & set(said["set"])


def test_the_credential_comes_from_a_private_file_and_stands_in_the_url(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "credential"
    file.write_text(f"{LEASE}:{SECRET}\n")
    file.chmod(0o600)
    asked = ["env", "--shell", "json", *_where("/ca"), "--credentials-file", str(file)]
    assert main(asked) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["set"]["http_proxy"] == f"http://{LEASE}:{SECRET}@127.0.0.1:8080"
    file.chmod(0o644)
    assert main(asked) == 2
    file.chmod(0o600)
    file.write_text("hunter2 is no credential")
    assert main(asked) == 2
    told = capsys.readouterr()
    assert "too open" in told.err and "LEASE_ID:SECRET" in told.err
    assert "hunter2" not in told.err + told.out


def test_where_no_proxy_is_known_it_says_what_to_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PALYRA_HOME", str(tmp_path))
    assert main(["env", "--shell", "sh"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "pass --proxy, --ca and --ca-bundle" in told.err


def test_socks_is_named_for_every_protocol_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    socks = ["--socks", "--socks-address", "127.0.0.1:1080"]
    assert main(["env", "--shell", "json", *_where("/ca"), *socks]) == 0
    said = json.loads(capsys.readouterr().out)["set"]
    assert (said["ALL_PROXY"], said["HTTPS_PROXY"]) == (
        "socks5h://127.0.0.1:1080",
        "http://127.0.0.1:8080",
    )


def _where(folder: str) -> list[str]:
    return ["--proxy", "127.0.0.1:8080", "--ca", f"{folder}/ca", "--ca-bundle", f"{folder}/all"]
