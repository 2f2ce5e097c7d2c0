"""Mirror of policy/json_schema.py and policy/language.py: editors and the reader agree.

No JSON Schema validator is among the dependencies, so `fits` below checks the few words that our
schema uses, and a test proves that it uses no other.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.json_schema import VALUES, policy_schema, schema_text
from palyra_egress.policy.language import POLICY, Holds, Key, Number, Section
from palyra_egress.policy.load import load_policy
from tests.egress.policy.policy_text import COMPLETE, POLICIES, SAMPLE_FILES

SCHEMA = POLICIES / "schema" / "egress-policy.v1.schema.json"
EDITOR_LINE = "# yaml-language-server: $schema={}/schema/egress-policy.v1.schema.json"
KNOWN_WORDS = {
    "$schema",
    "additionalProperties",
    "anyOf",
    "const",
    "description",
    "enum",
    "items",
    "maxLength",
    "maximum",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "propertyNames",
    "required",
    "title",
    "type",
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
}


def _has_type(value: Any, name: str) -> bool:
    if name == "integer" and isinstance(value, bool):
        return False
    return isinstance(value, TYPES[name])


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """True if the value is valid, by the words in KNOWN_WORDS."""
    if "type" in schema and not _has_type(value, schema["type"]):
        return False
    if "const" in schema and (value != schema["const"] or isinstance(value, bool)):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "anyOf" in schema and not any(fits(value, one) for one in schema["anyOf"]):
        return False
    if isinstance(value, str):
        is_long_enough = len(value) >= schema.get("minLength", 0)
        is_short_enough = len(value) <= schema.get("maxLength", len(value))
        matches = re.search(schema.get("pattern", ""), value) is not None
        return is_long_enough and is_short_enough and matches
    if isinstance(value, int) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {})) for item in value)
    return not isinstance(value, dict) or _object_fits(value, schema)


def _object_fits(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    if not set(schema.get("required", ())) <= set(value):
        return False
    for name, item in value.items():
        inner = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
        if inner is False or not fits(name, schema.get("propertyNames", {})):
            return False
        if not fits(item, inner):
            return False
    return True


def _plain(text: str) -> Any:
    """The file as plain objects; times stay text, as our reader has them."""
    yaml = YAML(typ="safe", pure=True)
    yaml.constructor.add_constructor(
        "tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node)
    )
    return yaml.load(io.StringIO(text))


def _words(schema: Any, is_properties: bool = False) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, inner in schema.items():
            if not is_properties:
                yield name
            yield from _words(inner, is_properties=name == "properties" and not is_properties)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _words(inner)


def test_the_committed_schema_is_the_one_that_the_table_makes() -> None:
    assert SCHEMA.read_text() == schema_text(), "run: palyra-egress policy schema > " + SCHEMA.name


def test_the_schema_uses_no_word_that_these_tests_do_not_check() -> None:
    assert set(_words(json.loads(schema_text()))) <= KNOWN_WORDS


def test_every_kind_of_value_has_a_schema() -> None:
    assert set(VALUES) == set(Holds)


@pytest.mark.parametrize("path", SAMPLE_FILES, ids=lambda path: path.stem)
def test_every_sample_policy_points_editors_at_the_schema_and_fits_it(path: Path) -> None:
    text = path.read_text()
    depth = len(path.relative_to(POLICIES).parents) - 1
    assert text.splitlines()[0] == EDITOR_LINE.format("/".join([".."] * depth) or ".")
    assert fits(_plain(text), policy_schema())


def test_a_policy_with_every_key_loads_and_fits() -> None:
    load_policy(COMPLETE.encode(), "f")
    assert fits(_plain(COMPLETE), policy_schema())


def _paths(section: Section, value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each key of the table stands in a document; in a list, the first item that has it."""
    places = [((*at, n), item) for n, item in enumerate(value)] if isinstance(value, list) else []
    for key in section.keys:
        having = [place for place in places or [(at, value)] if key.name in place[1]]
        assert having, (*at, key.name)
        here = (*having[0][0], key.name)
        yield here
        inner = having[0][1][key.name]
        if isinstance(key.holds, Section) and key.number is Number.BY_NAME:
            name = next(iter(inner))
            yield from _paths(key.holds, inner[name], (*here, name))
        elif isinstance(key.holds, Section):
            yield from _paths(key.holds, inner, here)


def _with(document: Any, path: tuple[Any, ...], value: Any) -> str:
    changed = json.loads(json.dumps(document))
    target = changed
    for step in path[:-1]:
        target = target[step]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return json.dumps(changed)


COMPLETE_PATHS = list(_paths(POLICY, _plain(COMPLETE)))


def _loads(text: str) -> bool:
    try:
        load_policy(text.encode(), "f", with_tests=False)
    except PolicyFileError:
        return False
    return True


@pytest.mark.parametrize("path", COMPLETE_PATHS, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("wrong", [{"x": 1}, [["x"]], 1.5, -7], ids=["map", "list", "float", "-7"])
def test_reader_and_schema_refuse_the_same_wrong_value(path: tuple[Any, ...], wrong: Any) -> None:
    text = _with(_plain(COMPLETE), path, wrong)
    assert not fits(json.loads(text), policy_schema())
    assert not _loads(text)


def _required(section: Section, name: str) -> bool:
    key = section.key(name)
    return isinstance(key, Key) and key.required is not None


@pytest.mark.parametrize("path", COMPLETE_PATHS, ids=lambda path: ".".join(map(str, path)))
def test_reader_and_schema_agree_on_what_may_be_left_out(path: tuple[Any, ...]) -> None:
    text = _with(_plain(COMPLETE), path, None)
    refused_for_shape = not fits(json.loads(text), policy_schema())
    problems = ""
    try:
        load_policy(text.encode(), "f", with_tests=False)
    except PolicyFileError as error:
        problems = str(error)
    assert ("missing_key" in problems) is refused_for_shape


@pytest.mark.parametrize(
    ("path", "word"),
    [
        (("mode",), "enforced"),
        (("rules", 0, "methods"), ["TRACE"]),
        (("rules", 0, "ports"), [70000]),
        (("rules", 0, "until"), "2027-03-31"),
        (("limits", "max_request_bytes"), "32MB"),
        (("violations", "quarantine"), ["resolution_failed"]),
        (("violations", "strike", "window"), "1d"),
        (("lint", "ignore", 0, "code"), "ignore_expired"),
        (("rules", 0, "tls"), "passthrough"),
        (("name",), "a b"),
    ],
)
def test_reader_and_schema_refuse_the_same_wrong_word(path: tuple[Any, ...], word: Any) -> None:
    text = _with(_plain(COMPLETE), path, word)
    assert not fits(json.loads(text), policy_schema())
    assert not _loads(text)
