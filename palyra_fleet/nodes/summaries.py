"""Summaries of what a node was asked and what it said: enough to recognise, nothing to misuse.

A payload is told by its shape: names, kinds and lengths, never a string's content, since any of
them may be a secret. A URL keeps scheme and host, which is what an operator judges. An error text
keeps its words; what looks like a credential in it does not. At most 240 characters. Pure.
"""

import json
import re
from typing import Final
from urllib.parse import urlsplit

MAX_SUMMARY: Final = 240
_MAX_NAMES: Final = 12
_MAX_NAME: Final = 32

_PAIR: Final = re.compile(
    r"(?i)\b([\w-]*(?:authorization|cookie|credential|key|passphrase|password|passwd|pin|proof"
    r"|secret|session|signature|token)[\w-]*)([\"']?\s*[=:]\s*)(?:(?:basic|bearer)\s+)?[^\s,;&]+"
)
_BEARER: Final = re.compile(r"(?i)\b(basic|bearer)\s+[^\s,;]+")
_URL: Final = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,15})://([^\s/?#]*@)?([^\s/?#]*)[^\s]*")
_LONG: Final = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]+"
)
"""Control characters, what turns text round or hides, and halves of surrogate pairs."""


def payload_summary(payload_json: bytes) -> str | None:
    """The shape of a payload that is JSON; None for none."""
    if not payload_json:
        return None
    try:
        value = json.loads(payload_json)
    except (ValueError, RecursionError):
        return f"{len(payload_json)} bytes that are not JSON"
    return _cut(_shape(value, depth=2))


def text_summary(text: str) -> str | None:
    """A node's own words without what looks like a credential; None for none."""
    plain = _UNPRINTABLE.sub(" ", text[: 16 * MAX_SUMMARY])
    plain = _URL.sub(lambda found: f"{found[1]}://{found[3]}/…" if found[3] else "…", plain)
    plain = _PAIR.sub(r"\1\2…", plain)
    plain = _BEARER.sub(r"\1 …", plain)
    plain = _LONG.sub("…", plain).strip()
    return _cut(plain) if plain else None


def _shape(value: object, depth: int) -> str:
    match value:
        case None | bool():
            return json.dumps(value)
        case int() | float():
            return "a number"
        case str():
            return _text_shape(value)
        case list():
            return f"a list of {len(value)}"
        case dict() if depth == 0:
            return f"an object of {len(value)}"
        case dict():
            shown = [
                f"{_name(name)}: {_shape(inner, depth - 1)}"
                for name, inner in list(value.items())[:_MAX_NAMES]
            ]
            more = [f"{len(value) - _MAX_NAMES} more"] if len(value) > _MAX_NAMES else []
            return "{" + ", ".join(shown + more) + "}"
        case _:
            return "something else"


def _name(name: str) -> str:
    """A key is data too: one that is no plain word is told by its length."""
    plain = len(name) <= _MAX_NAME and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name)
    return name if plain and not _LONG.search(name) else f"a name of {len(name)}"


def _text_shape(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is not None and host and parts.scheme in {"http", "https"} and len(host) <= 100:
        return f"{parts.scheme}://{_UNPRINTABLE.sub('', host)}/…"
    return f"{len(text)} characters"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SUMMARY else text[: MAX_SUMMARY - 1] + "…"
