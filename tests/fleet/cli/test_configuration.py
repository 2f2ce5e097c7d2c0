"""Settings by file, environment and flags: which holds, and what each mistake says."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from palyra_egress.cli.main import main as egress
from palyra_egress.cli.parser import make_parser as egress_parser
from palyra_fleet.cli.configuration import (
    EGRESS,
    FLEET,
    actions,
    check_variables,
    default_of,
    parser_of,
    with_settings,
)
from palyra_fleet.cli.main import main as fleet
from palyra_fleet.cli.parser import make_parser as fleet_parser
from palyra_fleet.cli.trouble import Trouble

NEVER_STARTS = "--listen=nowhere"
"""A flag that no `up` takes, so that one which overlooks a mistake ends, and with other words."""
SECRET = "hunter2"

FILE = """\
[serve]
admin = "127.0.0.1:1111"
trust_capability = ["file"]
nodes = true
least_binding = "ENFORCED"
"""


def parsed(
    flags: Sequence[str], environment: dict[str, str], text: str, folder: Path
) -> dict[str, Any]:
    file = folder / "fleet.toml"
    file.write_text(text)
    given = {"PALYRA_FLEET_CONFIG": str(file), **environment}
    parser = fleet_parser()
    return vars(parser.parse_args(with_settings(FLEET, parser, ["serve", *flags], given)))


def test_file_then_environment_then_flags_and_the_later_one_holds(tmp_path: Path) -> None:
    variable = {"PALYRA_FLEET_SERVE__ADMIN": "127.0.0.1:2222"}
    flag = ("--admin", "127.0.0.1:3333")
    assert parsed((), {}, FILE, tmp_path)["admin"] == ("127.0.0.1", 1111)
    assert parsed((), variable, FILE, tmp_path)["admin"] == ("127.0.0.1", 2222)
    assert parsed(flag, variable, FILE, tmp_path)["admin"] == ("127.0.0.1", 3333)
    assert parsed((), {}, FILE, tmp_path)["nodes"] is True
    assert parsed((), {}, FILE, tmp_path)["least_binding"] == "ENFORCED"


def test_a_list_takes_the_place_of_the_list_before(tmp_path: Path) -> None:
    variable = {"PALYRA_FLEET_SERVE__TRUST_CAPABILITY": "one,two"}
    flag = ("--trust-cap", "flag")  # cut short, as argparse allows
    assert parsed((), {}, FILE, tmp_path)["trust_capability"] == ["file"]
    assert parsed((), variable, FILE, tmp_path)["trust_capability"] == ["one", "two"]
    assert parsed(flag, variable, FILE, tmp_path)["trust_capability"] == ["flag"]


def test_a_flag_takes_the_place_of_what_excludes_it(tmp_path: Path) -> None:
    given = {
        "PALYRA_EGRESS_PROXY__SERVE__FLEET_SOCKET": "/run/fleet.sock",
        "PALYRA_EGRESS_PROXY__SERVE__STATE_DIR": str(tmp_path),
    }
    parser = egress_parser()
    asked = ["proxy", "serve", "--fleet", "https://fleet.example:7744"]
    read = parser.parse_args(with_settings(EGRESS, parser, asked, given))
    assert (read.fleet, read.fleet_socket) == ("https://fleet.example:7744", None)
    read = parser.parse_args(with_settings(EGRESS, parser, asked[:2], given))
    assert (read.fleet, read.fleet_socket) == (None, Path("/run/fleet.sock"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[serve]\nadmn = 'x'\n",
            ":2: serve.admn: there is no such setting; did you mean 'admin'?",
        ),
        ("[serve]\n\nadmin = 'x'\n", ":3: serve.admin: expected HOST:PORT"),
        ("[serve]\nadmin = ['127.0.0.1:1']\n", ":2: serve.admin: expected one text"),
        ("[serve]\nnodes = 'yes'\n", ":2: serve.nodes: expected true or false"),
        ("[serve]\nadmin = true\n", ":2: serve.admin: expected a text"),
        ("[serve]\nleast_binding = 'SOME'\n", ":2: serve.least_binding: expected one of "),
        ("[serve]\ntrust_capability = 'x'\n", "trust_capability: expected a list of texts"),
        ("[serve]\ntrust_capability = [1]\n", "trust_capability: expected a text"),
        ("[serve]\nadmin = {a = 1}\n", ":2: serve.admin: expected a text"),
        ("[sreve]\nadmin = 'x'\n", ":1: sreve: expected a table: serve; did you mean 'serve'?"),
        ("serve = 1\n", ":1: serve: expected a table: serve"),
        ("[serve\n", "not TOML"),
    ],
)
def test_a_mistake_in_the_file_says_line_key_and_what_was_expected(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(text)
    assert fleet(["config", "validate", "--file", str(file)]) == 2
    told = capsys.readouterr().err
    assert f"{file}" in told and expected in told
    with pytest.raises(Trouble, match="not usable"):
        parsed((), {}, text, tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PALYRA_EGRESS_UP__LISTN", "127.0.0.1:1", "did you mean 'PALYRA_EGRESS_UP__LISTEN'?"),
        ("PALYRA_EGRESS_UP_LISTEN", "127.0.0.1:1", "did you mean 'PALYRA_EGRESS_UP__LISTEN'?"),
        ("PALYRA_EGRESS_LISTEN_PORT_", "x", "there is no such setting"),
        ("PALYRA_EGRESS_UP__NAME", "true", "there is no such setting"),
        ("PALYRA_EGRESS_UP__LISTEN", "nowhere", "expected HOST:PORT"),
        ("PALYRA_EGRESS_PRXY__SERVE__LISTEN", "127.0.0.1:1", "expected one that begins with"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    variable: str,
    value: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    with contextlib.suppress(SystemExit):
        assert egress(["up", NEVER_STARTS]) == 2
    told = capsys.readouterr().err
    assert f"why: {variable}: " in told and expected in told


def test_a_misspelt_variable_is_refused_by_all_that_read_settings_and_its_value_is_not_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PALYRA_FLEET_SERVE_REATTEST_S", SECRET)
    serve = ["serve", "--reattest-s=never"]  # refused as well, so that none is ever started
    for asked in (serve, ["config", "validate"], ["config", "show", "--origin"]):
        with contextlib.suppress(SystemExit):
            assert fleet(asked) == 2
        told = capsys.readouterr().err
        assert "did you mean 'PALYRA_FLEET_SERVE__REATTEST_S'?" in told and SECRET not in told


REFUSED = (SECRET, f"https://{SECRET}:{SECRET}@{SECRET}.example/{SECRET}?{SECRET}#{SECRET}")


@pytest.mark.parametrize("value", REFUSED)
def test_a_value_that_is_refused_is_not_told(value: str, tmp_path: Path) -> None:
    refused = 0
    for program, top in ((FLEET, fleet_parser()), (EGRESS, egress_parser())):
        for verb in program.verbs:
            for key, action in actions(parser_of(top, verb)).items():
                name = program.variable(verb, key)
                is_list = isinstance(action, argparse._AppendAction)
                file = tmp_path / "given.toml"
                written = json.dumps([value] if is_list else value)
                file.write_text(f"[{'.'.join(verb)}]\n{key} = {written}\n")
                for named, environment in (
                    (name, {name: value}),
                    (f"{file}:2: ", {program.file_variable: str(file)}),
                ):
                    try:
                        with_settings(program, top, verb, environment)
                    except Trouble as trouble:
                        refused += 1
                        assert named in str(trouble) and "expected " in str(trouble)
                        assert SECRET not in str(trouble)
    assert refused > 100


def test_what_the_library_says_of_a_value_is_not_told() -> None:
    top = argparse.ArgumentParser()
    top.add_subparsers().add_parser("serve").add_argument("--rows", type=int)
    with pytest.raises(Trouble, match="SERVE__ROWS: expected what `--help` says") as raised:
        with_settings(FLEET, top, ["serve"], {"PALYRA_FLEET_SERVE__ROWS": SECRET})
    assert SECRET not in str(raised.value)


def test_a_variable_that_something_else_reads_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [*FLEET.other_variables[1:], *EGRESS.other_variables[1:]]
    of_kubernetes = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_API", "PORT", "PORT_7744_TCP")
    others += [f"PALYRA_{name}_{end}" for name in ("FLEET", "EGRESS_1") for end in of_kubernetes]
    others.append("PALYRA_FLEET_NODES_PORT_7744_TCP_ADDR")
    for name in others:
        monkeypatch.setenv(name, "x")
    assert fleet(["config", "validate"]) == 0
    assert egress(["config", "validate"]) == 0


def test_no_misspelling_of_a_setting_looks_like_what_kubernetes_adds() -> None:
    for program, top in ((FLEET, fleet_parser()), (EGRESS, egress_parser())):
        for verb in program.verbs:
            for key in actions(parser_of(top, verb)):
                name = program.variable(verb, key).replace("__", "_")
                with pytest.raises(Trouble, match="no such setting"):
                    check_variables(program, top, {name: "x"})


def test_a_text_may_be_the_word_true(tmp_path: Path) -> None:
    read = parsed((), {"PALYRA_FLEET_SERVE__TRUST_DOMAIN": "true"}, FILE, tmp_path)
    assert read["trust_domain"] == "true"
    with pytest.raises(Trouble, match="SERVE__NODES: expected true or false"):
        parsed((), {"PALYRA_FLEET_SERVE__NODES": "yes"}, FILE, tmp_path)


def test_show_says_what_holds_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text(FILE)
    monkeypatch.setenv("PALYRA_FLEET_SERVE__ADMIN", "127.0.0.1:2222")
    shown = ["config", "show", "--origin", "--file", str(file)]
    assert fleet([*shown, "-o", "json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["serve.admin"]["value"] == "127.0.0.1:2222"
    assert rows["serve.admin"]["origin"] == "environment PALYRA_FLEET_SERVE__ADMIN"
    assert rows["serve.nodes"] == {"key": "serve.nodes", "value": True, "origin": f"{file}:4"}
    assert rows["serve.node"]["origin"] == "default"
    assert fleet(shown) == 0
    assert f'serve.least_binding = "ENFORCED"  # {file}:5' in capsys.readouterr().out


def test_the_settings_file_that_is_named_is_looked_at_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attestors = tmp_path / "attestors.toml"
    attestors.write_text("[attestors.x509pop]\n")
    file = tmp_path / "fleet.toml"
    file.write_text(f"[serve]\nsettings = '{attestors}'\n")
    assert fleet(["config", "validate", "--file", str(file)]) == 2
    assert str(attestors) in capsys.readouterr().err


def test_every_key_is_spelt_once_and_no_other_command_reads_settings(tmp_path: Path) -> None:
    for program, top in ((EGRESS, egress_parser()), (FLEET, fleet_parser())):
        for verb in program.verbs:
            parser = parser_of(top, verb)
            flags = [action for action in parser._actions if action.option_strings]
            assert len(actions(parser)) == len(flags) - 2  # help and config
    asked = ["worker", "list"]
    wrong = {"PALYRA_FLEET_CONFIG": str(tmp_path / "missing.toml")}
    assert with_settings(FLEET, fleet_parser(), asked, wrong) == asked


def test_every_default_that_is_shown_may_be_written_and_means_the_same() -> None:
    """`config show` and the page of settings show it; somebody copies it."""
    looked_at = 0
    for program, top in ((FLEET, fleet_parser()), (EGRESS, egress_parser())):
        for verb in program.verbs:
            for key, action in actions(parser_of(top, verb)).items():
                shown = default_of(action)
                if not isinstance(shown, str) or not callable(action.type):
                    continue
                looked_at += 1
                taken = action.default
                if isinstance(taken, str):  # argparse reads it as if it were given
                    taken = action.type(taken)
                assert action.type(shown) == taken, f"{program.name} {verb} {key}"
    assert looked_at > 30


def test_settings_that_everybody_may_write_are_not_used(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    parsed((), {}, FILE, tmp_path)
    file.chmod(0o666)
    with pytest.raises(Trouble, match="mode 666 lets everybody write to it"):
        parsed((), {}, FILE, tmp_path)
