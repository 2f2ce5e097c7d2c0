"""What every kind of audit entry holds, as one table, and the JSON Schema made from it.

A reader of the log may count on the fields of a kind being there. New kinds and fields may come;
a field's name, type and meaning never change. Units stand in the names: `_unix_ms` is Unix time in
milliseconds, `_ms` a length of time, `bytes` bytes, `_sha256` 64 hex digits.
"""

import json
from dataclasses import dataclass
from typing import Final

type Json = dict[str, object]

SCHEMA_ID: Final = "urn:palyra:schema:audit-entry:v1"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `json_type` is JSON Schema's word; `optional` may be null."""

    json_type: str
    doc: str
    optional: bool = False
    needed: bool = True

    @property
    def schema(self) -> Json:
        kinds = [self.json_type, "null"] if self.optional else self.json_type
        found: Json = {"type": kinds, "description": self.doc}
        if self.json_type == "array":
            found["items"] = {"type": "string"}
        return found


def _text(doc: str, *, optional: bool = False, needed: bool = True) -> Field:
    return Field("string", doc, optional, needed)


def _number(doc: str, *, optional: bool = False, needed: bool = True) -> Field:
    return Field("integer", doc, optional, needed)


COMMON: Final = {
    "kind": _text("which kind of entry this is"),
    "at_unix_ms": _number("when, by the proxy's clock"),
    "seq": _number("its place in the log, from 1"),
    "previous_sha256": _text("the digest of the entry before it; 64 zeros for the first"),
    "sha256": _text("the digest of this entry's canonical JSON without this field"),
}
_WHO: Final = {
    "worker_id": _text("the worker whose credential was verified", optional=True),
    "lease_id": _text("its lease", optional=True),
    "run_id": _text("its run", optional=True),
    "profile": _text("the profile its grant names", optional=True),
}
_DECIDED: Final = {
    "decision_id": _text("the ULID that the worker is told too, and that evidence names"),
    "effect": _text("allow or deny"),
    "reason": _text("the reason code"),
    "class": _text("who caused it: allow, policy, threat, infra or client"),
    "policy_digest": _text("SHA-256 of the policy in force; empty without one"),
}
_REQUEST: Final = {
    "early": Field("boolean", "true: refused before there was a canonical request", needed=False),
    "would_deny": _text("what observe mode let pass", optional=True, needed=False),
    "method": _text("the method; CONNECT for a tunnel", needed=False),
    "target": _text(
        "the canonical URL without its query; host:port for CONNECT, http:// before it if plain",
        needed=False,
    ),
    "query": _text("its query, cut, where the deciding rule wants it", needed=False),
    "host": _text("the canonical host", needed=False),
    "port": _number("the port", needed=False),
    "rule_id": _text("the deciding rule", optional=True, needed=False),
    "policy_file": _text("the file it stands in", optional=True, needed=False),
    "policy_line": _number("the line it begins on, from 1", optional=True, needed=False),
    "fingerprint": _text("SHA-256 over the canonical request, worker, lease, policy", needed=False),
    "addresses": Field("array", "every address that was judged", needed=False),
    "headed_for": _text("where its sender headed for, if the proxy was put between", needed=False),
    "credentials": Field(
        "array",
        "header and secret's name of each credential that was added, or that could not be",
        needed=False,
    ),
    "upstream_roots": _text("what its server is verified by, if the rule says", needed=False),
    "client_certificate": _text("what its server is shown, if the rule says", needed=False),
    "consequence": _text("what it costs the worker: none, strike, quarantine", needed=False),
    "found": _text("the canary or secret that was leaving", optional=True, needed=False),
    "found_as": _text("how it was written", optional=True, needed=False),
    "found_in": _text(
        "where in the request: target, headers, body, trailers or message", needed=False
    ),
    "judged_in_ms": _number("from the request's head to the verdict", needed=False),
}
_FACTS: Final = {
    "binding_level": _text("how well its way through a proxy was known", needed=False),
    "capabilities": Field("array", "what the fleet trusted the worker to do", needed=False),
    "image_digest": _text("sha256: of the image it ran, if known", needed=False),
    "build_digest": _text("sha256: of the build it came from, if known", needed=False),
    "artifact_digest": _text("sha256: of the program it ran, if known", needed=False),
}
KINDS: Final[dict[str, tuple[str, dict[str, Field]]]] = {
    "verdict": (
        "One decision, written before it is carried out.",
        {**_DECIDED, **_REQUEST, **_WHO, **_FACTS},
    ),
    "transfer": (
        "The end of an allowed exchange.",
        {
            "decision_id": _text("the verdict that allowed it"),
            "outcome": _text("complete, or the reason code or word for why it ended before"),
            "request_bytes": _number("body bytes towards the server"),
            "response_bytes": _number("body bytes towards the worker"),
            "request_frames": _number("frames of a WebSocket towards the server", needed=False),
            "response_frames": _number("frames of a WebSocket towards the worker", needed=False),
            "duration_ms": _number("from the verdict to the end"),
        },
    ),
    "receipt": (
        "The proxy vouched that it saw a worker's key.",
        {
            "worker_key_sha256": _text("the thumbprint of the key"),
            "policy_digest": _text("SHA-256 of the policy in force"),
        },
    ),
    "policy": (
        "Another policy came into force while the proxy ran.",
        {
            "policy_digest": _text("SHA-256 of the policy that came into force"),
            "replaces_digest": _text("of the one before; null if there was none", optional=True),
            "widens": _number("in how many ways it allows more"),
            "widening": Field("array", "the first of these ways, in words"),
        },
    ),
    "unanswered": (
        "Strangers who were cut off without a verdict, counted.",
        {"connections": _number("how many since the last such entry")},
    ),
    "recovered": (
        "After a crash, a line that was written by half was taken away.",
        {"torn_bytes_dropped": _number("its bytes")},
    ),
    "checkpoint": (
        "The proxy signed where the chain stood.",
        {
            "covers_seq": _number("the entry before this one"),
            "covers_sha256": _text("its digest"),
            "key_sha256": _text("the thumbprint of the proxy's Ed25519 key"),
            "signature": _text("128 hex digits"),
        },
    ),
}


def _kind_schema(kind: str, doc: str, fields: dict[str, Field]) -> Json:
    every = {**COMMON, **fields}
    return {
        "type": "object",
        "description": doc,
        "properties": {
            **{name: field.schema for name, field in every.items()},
            "kind": {"const": kind},
        },
        "required": sorted(name for name, field in every.items() if field.needed),
        "additionalProperties": False,
    }


def entry_schema() -> Json:
    """The JSON Schema (draft 2020-12) of one line of the log."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "An entry of the Palyra egress audit log",
        "oneOf": [_kind_schema(kind, doc, fields) for kind, (doc, fields) in KINDS.items()],
    }


def schema_text() -> str:
    return json.dumps(entry_schema(), indent=2) + "\n"


def field_table() -> str:
    """The table of docs/audit.md, in Markdown."""
    lines = ["| kind | field | type | meaning |", "|---|---|---|---|"]
    for name, field in COMMON.items():
        lines.append(f"| every | `{name}` | {_type_words(field)} | {field.doc} |")
    for kind, (_, fields) in KINDS.items():
        for name, field in fields.items():
            lines.append(f"| {kind} | `{name}` | {_type_words(field)} | {field.doc} |")
    return "\n".join(lines) + "\n"


def _type_words(field: Field) -> str:
    kind = "list of strings" if field.json_type == "array" else field.json_type
    return (
        f"{kind}{' or null' if field.optional else ''}{'' if field.needed else ', may be absent'}"
    )
