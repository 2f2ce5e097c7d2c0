"""The JSON Schema (2020-12) of policy files, made from the language's table, for editors.

Output: a schema as plain objects. Keys, what is required and what each value is come from
`language`, the words and patterns from where the reader takes them, so nothing here is a second
list. The schema is a little stricter than the reader where an editor should complete one spelling
(methods in upper case, headers in lower case) and weaker where only the reader can judge
(references between rules, public suffixes, address ranges, times that no calendar has, headers that
never carry a secret).
"""

import json
from typing import Final, assert_never

from palyra_egress.credentials.binding import SECRET_REF_PATTERN
from palyra_egress.credentials.header_names import HEADER_PATTERN
from palyra_egress.facts import BINDING_LEVELS, CAPABILITY_PATTERN, DIGEST_PATTERN
from palyra_egress.policy.fields import MAX_TEXT
from palyra_egress.policy.language import POLICY, Holds, Key, Number, Section
from palyra_egress.policy.lint_codes import IGNORABLE
from palyra_egress.policy.schema import (
    KNOWN_METHODS,
    LANGUAGE_VERSION,
    LEAST_LEVELS,
    MAX_RATE,
    MAX_STRIKES,
    PENALISED_WORDS,
    SCHEME_PORT,
    Acknowledgement,
    Mode,
)
from palyra_egress.policy.values import (
    BASIC_USER_PATTERN,
    CANARY_PATTERN,
    DURATION_PATTERN,
    FORMAT_PATTERN,
    ID_PATTERN,
    INCLUDE_PATTERN,
    MAX_SIZE_BYTES,
    PLACEHOLDER_PATTERN,
    SIZE_PATTERN,
    TIME_PATTERN,
)
from palyra_egress.verdict import TlsMode

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

type Schema = dict[str, object]


def _words(*words: str) -> Schema:
    return {"enum": sorted(words)}


def _text(pattern: str | None = None) -> Schema:
    schema: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
    return schema if pattern is None else {"type": "string", "pattern": f"^(?:{pattern})$"}


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


_ANY_TEXT: Final[Schema] = {"type": "string", "minLength": 1}

VALUES: Final[dict[Holds, Schema]] = {
    Holds.VERSION: {"const": LANGUAGE_VERSION},
    Holds.IDENTIFIER: _text(ID_PATTERN),
    Holds.TEXT: _text(),
    Holds.BOOLEAN: {"type": "boolean"},
    Holds.SIZE: {"anyOf": [_whole(0, MAX_SIZE_BYTES), _text(SIZE_PATTERN)]},
    Holds.RATE: _whole(1, MAX_RATE),
    Holds.STRIKES: _whole(1, MAX_STRIKES),
    Holds.DURATION: _text(DURATION_PATTERN),
    Holds.TIME: _text(TIME_PATTERN),
    Holds.MODE: _words(*Mode),
    Holds.TLS_MODE: _words(*TlsMode),
    Holds.HOST: _ANY_TEXT,
    Holds.PORT: _whole(1, 65535),
    Holds.SCHEME: _words(*SCHEME_PORT),
    Holds.METHOD: _words(*KNOWN_METHODS),
    Holds.PATH: _text("/.*"),
    Holds.PRIVATE_RANGE: _ANY_TEXT,
    Holds.ACKNOWLEDGEMENT: _words(*Acknowledgement),
    Holds.REASON: _words(*PENALISED_WORDS),
    Holds.RULE_ID: _ANY_TEXT,
    Holds.ADDRESS: _ANY_TEXT,
    Holds.TEST_REQUEST: _text("[^ ]+ [^ ].*"),
    Holds.TEST_ANSWER: _text("allow|(?:deny|observe)(?: [a-z_0-9]+)?"),
    Holds.LINT_CODE: _words(*IGNORABLE),
    Holds.INCLUDE: _text(INCLUDE_PATTERN),
    Holds.CREDENTIAL_HEADER: _text(HEADER_PATTERN),
    Holds.REFERENCE: _text(SECRET_REF_PATTERN),
    Holds.CREDENTIAL_FORMAT: _text(FORMAT_PATTERN),
    Holds.BASIC_USER: _text(BASIC_USER_PATTERN),
    Holds.PLACEHOLDER: _text(PLACEHOLDER_PATTERN),
    Holds.DIGEST: _text(DIGEST_PATTERN),
    Holds.CAPABILITY: _text(CAPABILITY_PATTERN),
    Holds.BINDING_LEVEL: _words(*BINDING_LEVELS),
    Holds.LEAST_BINDING_LEVEL: _words(*LEAST_LEVELS),
    Holds.CANARY_VALUE: _text(CANARY_PATTERN),
}


def _property(key: Key) -> Schema:
    one = section_schema(key.holds) if isinstance(key.holds, Section) else VALUES[key.holds]
    match key.number:
        case Number.ONE:
            return {"description": key.doc, **one}
        case Number.LIST:
            return {"description": key.doc, "type": "array", "items": one}
        case Number.BY_NAME:
            return {
                "description": key.doc,
                "type": "object",
                "propertyNames": _text(ID_PATTERN),
                "additionalProperties": {"anyOf": [_short_form(key), one]},
            }
        case _:
            assert_never(key.number)


def _short_form(key: Key) -> Schema:
    """The list that may stand for a section: its first key."""
    if not isinstance(key.holds, Section):
        raise TypeError(f"{key.name} has no section")
    return _property(key.holds.keys[0])


def section_schema(section: Section) -> Schema:
    """An object with exactly the keys of the table."""
    schema: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _property(key) for key in section.keys},
    }
    required = [key.name for key in section.keys if key.required is not None]
    return {**schema, "required": required} if required else schema


def policy_schema() -> Schema:
    """The schema of a whole file."""
    title = f"Palyra egress policy, version {LANGUAGE_VERSION}"
    return {"$schema": DRAFT, "title": title, **section_schema(POLICY)}


def schema_text() -> str:
    return json.dumps(policy_schema(), indent=2) + "\n"
