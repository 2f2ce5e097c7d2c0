"""The policy language as one page of Markdown, made from the table that the reader uses. Pure.

Output: docs/reference/policy-language.md. Keys, defaults in words and what is required come from
`language`; `VALUES` says in words what each kind of value is, and a kind without a row fails.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from palyra_egress.credentials.binding import EXPECTED_REF
from palyra_egress.credentials.header_names import EXPECTED_HEADER
from palyra_egress.facts import BINDING_LEVELS, EXPECTED_CAPABILITY, EXPECTED_DIGEST
from palyra_egress.policy.errors import ProblemCode
from palyra_egress.policy.fields import MAX_TEXT
from palyra_egress.policy.language import (
    EXPECTED_ANSWER,
    EXPECTED_REQUEST,
    POLICY,
    Holds,
    Key,
    Number,
    Section,
)
from palyra_egress.policy.lint_codes import LINT
from palyra_egress.policy.schema import (
    KNOWN_METHODS,
    LANGUAGE_VERSION,
    LEAST_LEVELS,
    MAX_RATE,
    MAX_STRIKES,
    PENALISED_WORDS,
    SCHEME_PORT,
    SERVICE_PORTS,
    Acknowledgement,
    Mode,
)
from palyra_egress.policy.values import (
    EXPECTED_BASIC_USER,
    EXPECTED_CANARY,
    EXPECTED_DURATION,
    EXPECTED_FORMAT,
    EXPECTED_ID,
    EXPECTED_INCLUDE,
    EXPECTED_PLACEHOLDER,
    EXPECTED_SIZE,
    EXPECTED_TIME,
)
from palyra_egress.verdict import TlsMode

HEAD: Final = f"""\
# The policy language, version {LANGUAGE_VERSION}

Made from the code by `make reference`; not to be edited. How to use it day by day is in
[policies/README.md](../../policies/README.md), how rules are weighed too; the same table as JSON
Schema is [egress-policy.v1.schema.json](../../policies/schema/egress-policy.v1.schema.json).
A key that does not stand here refuses the file.
"""


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


VALUES: Final[Mapping[Holds, str]] = {
    Holds.VERSION: f"the number {LANGUAGE_VERSION}",
    Holds.IDENTIFIER: EXPECTED_ID,
    Holds.TEXT: f"text, at most {MAX_TEXT} signs",
    Holds.BOOLEAN: "`true` or `false`",
    Holds.SIZE: EXPECTED_SIZE,
    Holds.RATE: f"a whole number from 1 to {MAX_RATE}",
    Holds.STRIKES: f"a whole number from 1 to {MAX_STRIKES}",
    Holds.DURATION: EXPECTED_DURATION,
    Holds.TIME: EXPECTED_TIME,
    Holds.MODE: _words(Mode),
    Holds.TLS_MODE: _words(TlsMode),
    Holds.HOST: "`a.example`, `*.example`, `.example`, an IP address or a CIDR",
    Holds.PORT: "a whole number from 1 to 65535",
    Holds.SCHEME: _words(sorted(SCHEME_PORT)),
    Holds.METHOD: "a [method](#methods)",
    Holds.PATH: "segments; `*` for one, `**` at the end for any depth",
    Holds.PRIVATE_RANGE: "a CIDR inside one special-purpose range, such as `10.20.0.0/16`",
    Holds.ACKNOWLEDGEMENT: _words(Acknowledgement),
    Holds.REASON: "a [reason that may cost something](#reasons-that-may-cost-a-worker-something)",
    Holds.RULE_ID: "the id of a rule",
    Holds.ADDRESS: "an IP address",
    Holds.TEST_REQUEST: EXPECTED_REQUEST,
    Holds.TEST_ANSWER: EXPECTED_ANSWER,
    Holds.LINT_CODE: "a [lint code](#lint-codes)",
    Holds.INCLUDE: EXPECTED_INCLUDE,
    Holds.CREDENTIAL_HEADER: EXPECTED_HEADER,
    Holds.REFERENCE: f"one of {EXPECTED_REF.removeprefix('one of ')}",
    Holds.CREDENTIAL_FORMAT: EXPECTED_FORMAT,
    Holds.BASIC_USER: EXPECTED_BASIC_USER,
    Holds.PLACEHOLDER: EXPECTED_PLACEHOLDER,
    Holds.DIGEST: EXPECTED_DIGEST,
    Holds.CAPABILITY: EXPECTED_CAPABILITY,
    Holds.BINDING_LEVEL: _words(BINDING_LEVELS),
    Holds.LEAST_BINDING_LEVEL: _words(LEAST_LEVELS),
    Holds.CANARY_VALUE: EXPECTED_CANARY,
}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    names = list(heads)
    for row in (names, ["---"] * len(names), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def _value(path: str, key: Key) -> str:
    if isinstance(key.holds, Section):
        words = f"[{path}](#{path.replace('.', '')})"
    else:
        words = VALUES[key.holds]
    match key.number:
        case Number.ONE:
            return words
        case Number.LIST:
            return f"a list: {words}"
        case Number.BY_NAME:
            return f"a mapping from names: {words}, or the list of its first key"


def _section(section: Section, path: str) -> Iterator[str]:
    """The section's own table, then those below it."""
    yield f"\n## {path or 'A policy'}\n"
    places = {key.name: f"{path}.{key.name}".lstrip(".") for key in section.keys}
    yield from table(
        ("key", "", "value", "meaning"),
        (
            (
                f"`{key.name}`",
                "" if key.required is None else "required",
                _value(places[key.name], key),
                key.doc,
            )
            for key in section.keys
        ),
    )
    if section.later:
        yield "\nKnown, not enforced by this version, and therefore refused:\n"
        rows = ((f"`{word}`", meaning) for word, meaning in section.later.items())
        yield from table(("word", "what it would say"), rows)
    for key in section.keys:
        if isinstance(key.holds, Section):
            yield from _section(key.holds, places[key.name])


def _tables() -> Iterator[str]:
    yield f"\n## Methods\n\n{_words(sorted(KNOWN_METHODS))}"
    yield "\n## Ports that need `acknowledge: [service_port]`\n"
    yield ", ".join(f"{port} ({name})" for port, name in SERVICE_PORTS.items())
    yield f"\n## Reasons that may cost a worker something\n\n{_words(PENALISED_WORDS)}"
    yield "\n[All reasons](reasons.md).\n\n## Lint codes\n"
    rows = ((f"`{code}`", row.level.value, row.title, row.advice) for code, row in LINT.items())
    yield from table(("code", "level", "what it says", "what would make it go away"), rows)
    yield f"\n## Codes of problems that refuse a file\n\n{_words(ProblemCode)}\n"


def language_page() -> bytes:
    """The whole page."""
    return "\n".join([HEAD.rstrip("\n"), *_section(POLICY, ""), *_tables()]).encode()
