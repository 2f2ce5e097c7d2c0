"""The blocks of the documents, read by what would read them: shells, the parsers of both programs,
the reader of policies, TOML, JSON.

Which pages are also run, and why others are not, stands in `RUN_BY` and `NOT_RUN` of test_docs.
"""

import argparse
import ast
import base64
import configparser
import importlib
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from palyra_egress.approvals.approvers import read_approvers
from palyra_egress.cli.main import main as egress
from palyra_egress.policy.load import load_policy
from palyra_fleet.cli.main import main as fleet
from palyra_fleet.leases.approval_file import read_approvals
from palyra_fleet.settings.file import SettingsFileError, read_settings
from palyra_fleet.wire.keys import SigningKey
from tests.fakes.attestation_material import new_authority
from tests.golden.command_tree import PARSERS
from tests.project.documents import Block, blocks, inline, steps, typed

SHELLS: Final = {"sh", "console", "bash"}
FORMS: Final = SHELLS | {"yaml", "toml", "json", "ini", "python", "text"}
NOT_READ: Final = {
    "include: [base.yaml, team/rules.yaml]": "the files are elsewhere: policies/data-pipeline",
}
"""YAML that no reader takes as it stands, and why."""
OF_HISTORY: Final = {"CHANGELOG.md", "security-review.md"}
_SAMPLE_ID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
_SAMPLES: Final = (
    (re.compile(r"[A-Z]+[-_]ID"), _SAMPLE_ID),
    (re.compile(r"\$key|\$\([^)]* key [^)]*\)"), base64.b64encode(bytes(32)).decode()),
    (re.compile(r"\$\([^)]* -o name\)"), _SAMPLE_ID),
)
_PUNCTUATION: Final = "();<>|&"


@pytest.fixture
def pages(tracked_files: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path for path in tracked_files if path.suffix == ".md")


def every(pages: tuple[Path, ...], *languages: str) -> Iterator[Block]:
    return (one for page in pages for one in blocks(page) if one.language in languages)


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of ours that stands by itself in a line: the program, and what it is given.
    Raises ValueError where a quotation does not end."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=_PUNCTUATION)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set(_PUNCTUATION):
                yield from _ours(command)
                command = []
            else:
                command.append(word)
                for inner in re.findall(r"\$\(([^)]*)\)", word):
                    yield from commands(inner)


def _ours(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The command without `sudo` or variables before it, if it is one of ours."""
    while words and (words[0] == "sudo" or re.match(r"\w+=", words[0])):
        words = words[1:]
    if len(words) > 1 and (program := words[0].rpartition("/")[2]) in PARSERS:
        yield program, words[1:]


def mistake(program: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What the parser has against a command, None if it takes it. One that is shortened with `…`
    needs its verbs and flags only; a name in capitals stands for a value."""
    shortened = any("…" in word or word.startswith("[") for word in words)
    for form, sample in _SAMPLES:
        words = [form.sub(sample, word) for word in words]
    if shortened:
        return _unknown(program, words)
    try:
        PARSERS[program].parse_args(words)
    except SystemExit as ended:
        told = capsys.readouterr().err
        return told if ended.code else None
    return None


def _unknown(program: str, words: list[str]) -> str | None:
    """The first word that is no verb where one must stand, or a flag that there is not."""
    parser = PARSERS[program]
    while (below := _verbs(parser)) and words:
        if words[0] not in below:
            left_open = words[0] in {"…", "--help"} or words[0].isupper()
            return None if left_open else f"no such verb: {words[0]}"
        parser, words = below[words[0]], words[1:]
    for word in words[: words.index("--")] if "--" in words else words:
        flag = word.strip("[]").partition("=")[0]
        if flag.startswith("-") and flag not in parser._option_string_actions:
            return f"no such flag: {flag}"
    return None


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_every_block_says_what_it_is_written_in(pages: tuple[Path, ...]) -> None:
    assert {one.place: one.language for one in _all(pages) if one.language not in FORMS} == {}


def _all(pages: tuple[Path, ...]) -> Iterator[Block]:
    return (one for page in pages for one in blocks(page))


def test_every_shell_block_is_read_by_a_shell(pages: tuple[Path, ...]) -> None:
    wrong = {}
    for block in every(pages, *SHELLS):
        read = subprocess.run(
            ["sh", "-n"], check=False, input=typed(block), text=True, capture_output=True
        )
        if read.returncode:
            wrong[block.place] = read.stderr
    assert wrong == {}


def test_what_is_typed_has_a_prompt_only_where_what_it_puts_out_is_shown(
    pages: tuple[Path, ...],
) -> None:
    """In a `console`, where every command has one; what is to be copied has none."""
    prompts = [
        block.place
        for block in every(pages, *(FORMS - {"console", "text"}))
        if re.search(r"^\s*\$ ", block.text, re.MULTILINE)
    ]
    assert prompts == []


def test_what_a_console_shows_is_no_command() -> None:
    shown = "$ palyra-fleet worker show \\\n  ID\nthe worker's own\npalyra-fleet: no\n$ true\n"
    block = Block("page.md:1", "console", shown, "")
    assert typed(block) == "palyra-fleet worker show \\\n  ID\ntrue\n"
    assert [put_out for _, put_out in steps(block)] == [
        ["the worker's own", "palyra-fleet: no"],
        [],
    ]
    for text in ("", "no prompt\n$ true\n"):
        with pytest.raises(ValueError, match=r"page\.md:1: no command"):
            typed(Block("page.md:1", "console", text, ""))


def test_every_command_in_a_block_is_taken_by_the_parser_of_its_program(
    pages: tuple[Path, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, seen = {}, 0
    for block in every(pages, *SHELLS):
        for program, words in commands(typed(block)):
            seen += 1
            if told := mistake(program, words, capsys):
                wrong[f"{block.place}: {program} {shlex.join(words)}"] = told
    assert wrong == {}
    assert seen > 100


def test_every_command_in_a_sentence_exists_with_its_flags(pages: tuple[Path, ...]) -> None:
    """Code spans that begin with a program of ours; they need not be whole."""
    wrong, seen = {}, 0
    for page in pages:
        if page.name in OF_HISTORY:
            continue
        for line, token in inline(page):
            if token.type == "code_inline" and token.content.partition(" ")[0] in PARSERS:
                program, *words = token.content.replace("|", " | ").split()
                words = words[: words.index("|")] if "|" in words else words
                seen += 1
                if told := _unknown(program, words):
                    wrong[f"{page.name}:{line}: {token.content}"] = told
    assert wrong == {}
    assert seen > 100


def _with_a_key(_: re.Match[str]) -> str:
    return f'key: "{base64.b64encode(SigningKey.generate().public_key).decode()}"'


def whole(fragment: str) -> str:
    """A policy around a part of one: its rules in a profile, the rules that it names."""
    if fragment.startswith("    credentials:"):
        fragment = f"  - id: r\n    hosts: [api.example]\n{fragment}"
    if fragment.startswith("  - "):
        fragment = f"rules:\n{fragment}"
    keys = set(re.findall(r"^(\w+):", fragment, re.MULTILINE))
    named = (
        re.findall(r"(?:: \[|rules: \[|rule: )([a-z, ]+)", fragment) if "rules" not in keys else []
    )
    ids = sorted({one.strip() for names in named for one in names.split(",") if one.strip()})
    rules = [f"  - {{id: {one}, hosts: [{one}.example]}}\n" for one in ids or ["r"]]
    more = {
        "version": "version: 1\n",
        "name": "name: part\n",
        "rules": f"rules:\n{''.join(rules)}",
        "profiles": "profiles: {p: []}\n",
    }
    return fragment + "".join(text for key, text in more.items() if key not in keys)


def test_every_yaml_block_is_read_by_what_would_read_it(pages: tuple[Path, ...]) -> None:
    read = 0
    for block in every(pages, "yaml"):
        if block.text.strip() in NOT_READ:
            continue
        read += 1
        if re.search(r"^    who:", block.text, re.MULTILINE):  # rules that approve runs
            assert read_approvals(block.text.encode(), block.place).cases, block.place
        elif re.search(r"^approvers:", block.text, re.MULTILINE):
            given = re.sub(r'key: "[^"]*"', _with_a_key, block.text)
            assert read_approvers(given.encode(), block.place).people, block.place
        else:
            assert load_policy(whole(block.text).encode(), block.place).digest, block.place
    assert read > 6


def test_every_toml_block_is_one_that_a_program_takes(
    pages: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    for block in every(pages, "toml"):
        file = tmp_path / "settings.toml"
        file.write_text(block.text)
        tables = tomllib.loads(block.text).keys()
        if tables & {"up", "proxy"}:
            assert egress(["config", "validate", "--file", str(file)]) == 0, block.place
        elif tables & {"serve", "worker"}:
            assert fleet(["config", "validate", "--file", str(file)]) == 0, block.place
        elif tables == {"attestors"}:  # all is read, and the first of the files is not here
            with pytest.raises(SettingsFileError, match="No such file"):
                read_settings(file)
        elif tables == {"issuers"}:
            (tmp_path / "issuer-ca.pem").write_bytes(new_authority()[1].public_bytes(Encoding.PEM))
            assert read_settings(file).issuers, block.place
        else:
            assert "sources" in tables, block.place  # another program's
        read += 1
    assert read > 3


def test_every_block_of_another_form_is_read_as_such(pages: tuple[Path, ...]) -> None:
    for block in every(pages, "json"):
        assert json.loads(block.text), block.place
    for block in every(pages, "ini"):
        read = configparser.ConfigParser(delimiters=(" ",), interpolation=None)
        read.read_string(re.sub(r"(?m)^ +", "", block.text))
        assert read.sections(), block.place
    for block in every(pages, "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                missing = [one.name for one in node.names if not hasattr(module, one.name)]
                assert missing == [], block.place
