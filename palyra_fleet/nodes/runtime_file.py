"""The format of `node-runtime.v1.json`: bytes to maps and back.

One JSON object: `schema_version`, `generation` (grows with every write), `content_sha256` over all
that follows it, then the four maps, one record a line, so that a torn or edited file is known as
such. Reading is exact: an unknown field, a coerced value or a key that is not its record's id
refuses the file, with the place. Private keys and codes have no field here. Times: Unix ms. Pure.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from palyra_fleet.identity.records import DevicePairingCodeRecord, DevicePairingRequestRecord
from palyra_fleet.nodes.records import CapabilityRequestRecord, RegisteredNodeRecord

SCHEMA_VERSION: Final = 1
FILE_NAME: Final = "node-runtime.v1.json"

type Record = (
    DevicePairingCodeRecord
    | DevicePairingRequestRecord
    | RegisteredNodeRecord
    | CapabilityRequestRecord
)


class NotRuntimeState(ValueError):
    """The bytes are no state that this version wrote; the text says where and why."""


@dataclass(slots=True)
class PersistedNodeRuntimeState:
    """The four maps. Keys: code hash, request id, device id, request id."""

    active_pairing_codes: dict[str, DevicePairingCodeRecord] = field(default_factory=dict)
    pairing_requests: dict[str, DevicePairingRequestRecord] = field(default_factory=dict)
    nodes: dict[str, RegisteredNodeRecord] = field(default_factory=dict)
    capability_requests: dict[str, CapabilityRequestRecord] = field(default_factory=dict)
    generation: int = 0


ADAPTERS: Final[Mapping[str, TypeAdapter[Any]]] = {
    "active_pairing_codes": TypeAdapter(DevicePairingCodeRecord),
    "pairing_requests": TypeAdapter(DevicePairingRequestRecord),
    "nodes": TypeAdapter(RegisteredNodeRecord),
    "capability_requests": TypeAdapter(CapabilityRequestRecord),
}
SECTIONS: Final = tuple(ADAPTERS)
_KEY_OF: Final[Mapping[str, Callable[[Record], str]]] = {
    "active_pairing_codes": lambda record: str(getattr(record, "code_hash", "")),
    "pairing_requests": lambda record: str(getattr(record, "request_id", "")),
    "nodes": lambda record: str(getattr(record, "device_id", "")),
    "capability_requests": lambda record: str(getattr(record, "request_id", "")),
}
_HEAD: Final = re.compile(
    rb'\{"schema_version":([0-9]{1,6}),"generation":([0-9]{1,18}),'
    rb'"content_sha256":"([0-9a-f]{64})",\n'
)


def section_of(state: PersistedNodeRuntimeState, section: str) -> dict[str, Record]:
    """One of the four maps, by its name in the file."""
    found: dict[str, Record] = getattr(state, section)
    return found


def encode_record(section: str, record: Record) -> bytes:
    """One record as it stands in the file."""
    encoded: bytes = ADAPTERS[section].dump_json(record)
    return encoded


def render(generation: int, encoded: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """The whole file from encoded records."""
    maps = []
    for section in SECTIONS:
        rows = b",\n".join(
            json.dumps(key).encode() + b":" + row for key, row in encoded[section].items()
        )
        maps.append(f'"{section}":'.encode() + b"{" + (b"\n" + rows if rows else b"") + b"}")
    body = b",\n".join(maps) + b"}\n"
    digest = hashlib.sha256(body).hexdigest()
    head = (
        f'{{"schema_version":{SCHEMA_VERSION},"generation":{generation},'
        f'"content_sha256":"{digest}",\n'
    )
    return head.encode() + body


def parse(content: bytes) -> PersistedNodeRuntimeState:
    """The maps in a file that we wrote. Raises NotRuntimeState."""
    head = _HEAD.match(content)
    if head is None:
        raise NotRuntimeState(_why_headless(content))
    if int(head[1]) != SCHEMA_VERSION:
        raise NotRuntimeState(
            f"schema_version is {int(head[1])}; this version reads {SCHEMA_VERSION}"
        )
    if hashlib.sha256(content[head.end() :]).hexdigest() != head[3].decode():
        raise NotRuntimeState("content_sha256 does not fit: the file is torn or was changed")
    raw = json.loads(content)
    state = PersistedNodeRuntimeState(generation=int(head[2]))
    unknown = sorted(set(raw) - {"schema_version", "generation", "content_sha256", *SECTIONS})
    if unknown:
        raise NotRuntimeState(f"{unknown[0]}: unknown field")
    for section in SECTIONS:
        for key, value in raw[section].items():
            section_of(state, section)[key] = decode_record(section, key, value)
    return state


def decode_record(section: str, key: str, value: object) -> Record:
    """One record out of parsed JSON, exactly. Raises NotRuntimeState with the place."""
    place = f"{section}.{key}"
    adapter = ADAPTERS[section]
    try:
        record: Record = adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotRuntimeState(f"{place}.{where}: {first['msg']}") from None
    unknown = unknown_field(value, adapter.dump_python(record, mode="json"))
    if unknown is not None:
        raise NotRuntimeState(f"{place}{unknown}: unknown field")
    if _KEY_OF[section](record) != key:
        raise NotRuntimeState(f"{place}: the key is not the record's own")
    return record


def unknown_field(given: object, known: object) -> str | None:
    """The path of a field that `given` has and `known` has not."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name, inner in given.items():
            if name not in known:
                return f".{name}"
            deeper = unknown_field(inner, known[name])
            if deeper is not None:
                return f".{name}{deeper}"
    if isinstance(given, list) and isinstance(known, list):
        for place, (inner, other) in enumerate(zip(given, known, strict=True)):
            deeper = unknown_field(inner, other)
            if deeper is not None:
                return f"[{place}]{deeper}"
    return None


def without_unknown_fields(adapter: TypeAdapter[Any], value: object) -> tuple[object, list[str]]:
    """The value without what its record has no field for, and the paths that were left out.

    What is wrong otherwise stays, for `decode_record` to name.
    """
    dropped: list[str] = []
    try:
        known = adapter.dump_python(adapter.validate_json(json.dumps(value)), mode="json")
    except ValidationError:
        return value, dropped
    while (path := unknown_field(value, known)) is not None:
        dropped.append(path)
        value = _without(value, path)
    return value, dropped


def _without(value: object, path: str) -> object:
    """A copy of nested objects without the field at `.a.b`; paths through lists end at the list."""
    name, _, rest = path.removeprefix(".").partition(".")
    if not isinstance(value, dict):
        return value
    if rest:
        return {key: _without(v, rest) if key == name else v for key, v in value.items()}
    bare, bracket, _ = name.partition("[")
    del bracket
    return {key: inner for key, inner in value.items() if key != bare}


def _why_headless(content: bytes) -> str:
    if not content:
        return "the file is empty"
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        return "it is not whole JSON: torn, or not this state at all"
    if isinstance(raw, dict) and "schema_version" not in raw:
        return "it has no schema_version: a file of the Rust system is imported, not put here"
    return "it does not begin as this version writes it: the file was changed"
