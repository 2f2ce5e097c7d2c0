"""From the bytes of another tool's policy file to one of ours.

Input: the source, the bytes, the name to report, and optionally a profile (for smokescreen the one
service to import, otherwise the name of the profile that is made). Output: an `ImportedPolicy`
whose text our strict loader has read. Raises `PolicyFileError` where the bytes are not the YAML or
JSON expected, `ImportRefused` where the file cannot be carried. Foreign YAML is read as strictly as
ours: no aliases, no duplicate keys, no values that YAML versions read differently.
"""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

from palyra_egress.policy.document import MAX_BYTES, read_document
from palyra_egress.policy.errors import PolicyFileError, Problem, ProblemCode, Problems
from palyra_egress.policy.importers import (
    agent_vault,
    awf,
    iron_proxy,
    sandbox_runtime,
    smokescreen,
)
from palyra_egress.policy.importers.draft import Draft, ImportRefused, Value
from palyra_egress.policy.importers.writer import write_policy
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.values import EXPECTED_ID, is_identifier
from palyra_fleet.strict_yaml.document import Node, Position, Scalar, Sequence


class Source(StrEnum):
    """The formats that can be imported."""

    SMOKESCREEN = "smokescreen"
    IRON_PROXY = "iron-proxy"
    AGENT_VAULT = "agent-vault"
    SANDBOX_RUNTIME = "sandbox-runtime"
    AWF = "awf"


_TRANSLATORS: Final[dict[Source, Callable[[Value, str | None], Draft]]] = {
    Source.SMOKESCREEN: smokescreen.translate,
    Source.IRON_PROXY: iron_proxy.translate,
    Source.AGENT_VAULT: agent_vault.translate,
    Source.SANDBOX_RUNTIME: sandbox_runtime.translate,
    Source.AWF: awf.translate,
}
_FIRST_KEY: Final = re.compile(rb"(?:\s*#[^\n]*\n|\s*\n|---\s*\n)*[A-Za-z$\"'_]+\s*:(?:\s|$)")


class ImportedPolicy(NamedTuple):
    """`text` loads; `dropped` tells what meant something and is not in it."""

    text: str
    dropped: tuple[str, ...]


def _plain(node: Node) -> Value:
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [_plain(item) for item in node.items]
        case _:
            return {name: _plain(value) for name, (_, value) in node.entries.items()}


def _refuse(file: str, code: ProblemCode, what: str, line: int = 1, column: int = 1) -> NoReturn:
    raise PolicyFileError([Problem(file, Position(line, column), code, what)])


def _each_key_once(pairs: list[tuple[str, Value]]) -> Value:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ImportRefused("a key stands twice in one object")
    return found


def _read_json(data: bytes, file: str) -> Value:
    if len(data) > MAX_BYTES:
        _refuse(file, ProblemCode.TOO_LARGE, f"the file has more than {MAX_BYTES} bytes")
    try:
        value: Value = json.loads(data.decode("utf-8"), object_pairs_hook=_each_key_once)
    except json.JSONDecodeError as error:
        _refuse(file, ProblemCode.SYNTAX, f"not JSON: {error.msg}", error.lineno, error.colno)
    except UnicodeDecodeError:
        _refuse(file, ProblemCode.NOT_UTF8, "bytes that are not UTF-8")
    except RecursionError:
        _refuse(file, ProblemCode.SYNTAX, "not JSON: nesting is too deep")
    return value


def _read_yaml(data: bytes, file: str) -> Value:
    problems = Problems(file)
    root = read_document(data, problems)
    if root is None or problems.found:
        problems.raise_all()
    return _plain(root)


def _read(source: Source, data: bytes, file: str) -> Value:
    """Plain values; for awf's list of domains its text."""
    if data.lstrip()[:1] == b"{":
        return _read_json(data, file)
    if source is Source.AWF and _FIRST_KEY.match(data) is None:
        try:
            return data[:MAX_BYTES].decode("utf-8")
        except UnicodeDecodeError:
            _refuse(file, ProblemCode.NOT_UTF8, "bytes that are not UTF-8")
    return _read_yaml(data, file)


def import_policy(source: Source, data: bytes, file: str, profile: str | None) -> ImportedPolicy:
    """The translated policy; what is returned has passed our own loader."""
    if profile is not None and source is not Source.SMOKESCREEN and not is_identifier(profile):
        raise ImportRefused(f"a profile's name is {EXPECTED_ID}")
    draft = _TRANSLATORS[source](_read(source, data, file), profile)
    text = write_policy(draft)
    load_policy(text.encode(), f"{draft.source}-import")
    return ImportedPolicy(text, tuple(draft.dropped))
