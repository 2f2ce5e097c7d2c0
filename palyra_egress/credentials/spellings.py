"""The ways in which a secret is written when it leaves in clear. Pure.

Two functions make text comparable. `folded` maps byte by byte: letters to lower case, the URL-safe
base64 signs to the standard ones, and white space, NUL and backslashes to nothing; so either case
of hex, both base64 alphabets, wrapped lines and UTF-16 all become one spelling. `unescaped`
resolves percent, JSON and hex escapes. Both work on any piece of a text as they do on the whole,
but for what of an escape stands next to the cut, so a stream can be read in pieces that overlap.

`spellings` gives what to look for in folded text: the secret as it is, in base64 at each of the
three alignments (without the signs that its neighbours have a part in), in hex, and these of the
secret once percent-encoded, JSON-escaped, in hex or in base64: one level of nesting.
Sources: RFC 4648 (base64, hex), RFC 3986 section 2.1 (percent), RFC 8259 section 7 (JSON escapes).
"""

import base64
import json
import re
from typing import Final
from urllib.parse import quote

MIN_SPELLING: Final = 8
"""What is shorter in folded form would be found by chance, so nothing looks for it."""
MAX_ESCAPE_BYTES: Final = 128
"""No byte of a text that `unescaped` resolves twice is written in more than this many."""

_SAME: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-_", b"abcdefghijklmnopqrstuvwxyz+/")
_NOTHING: Final = b"\0\t\n\v\f\r \\"
_BACKSLASH: Final = re.compile(rb"\\[nrtux]")
_LINE_SIGN: Final = re.compile(rb"\\[nrt]")
# runs, because one call for many escapes is what makes dense ones affordable
_PERCENT: Final = re.compile(rb"%[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2})*")
_UNICODE: Final = re.compile(rb"\\u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4})*")
_HEX: Final = re.compile(rb"\\x[0-9A-Fa-f]{2}(?:\\x[0-9A-Fa-f]{2})*")
_DIGITS: Final = "0123456789abcdefABCDEF"
_ONE_PERCENT: Final = {
    f"%{high}{low}".encode(): bytes.fromhex(high + low) for high in _DIGITS for low in _DIGITS
}
_CUT_ESCAPE: Final = re.compile(rb"(?:%[0-9A-Fa-f]?|\\(?:u[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?)\Z")


def folded(text: bytes) -> bytes:
    """The comparable form of a text."""
    return text.translate(_SAME, _NOTHING)


def _from_percent(found: re.Match[bytes]) -> bytes:
    run = found[0]
    return _ONE_PERCENT.get(run) or bytes.fromhex(run.replace(b"%", b"").decode("ascii"))


def _from_hex(found: re.Match[bytes]) -> bytes:
    return bytes.fromhex(found[0].replace(b"\\x", b"").decode("ascii"))


def _from_unicode(found: re.Match[bytes]) -> bytes:
    units = bytes.fromhex(found[0].replace(b"\\u", b"").decode("ascii"))
    return units.decode("utf-16-be", errors="replace").encode()


def _without_line_signs(text: bytes) -> bytes:
    """Line ends and tabs in escaped form as one line end, which `folded` drops."""
    if text.count(b"\\") * 64 < len(text):  # few: one careful pass is quicker than three
        return _LINE_SIGN.sub(b"\n", text)
    return text.replace(b"\\n", b"\n").replace(b"\\r", b"\n").replace(b"\\t", b"\n")


def unescaped(text: bytes) -> bytes:
    """The text with one level of its escapes resolved, whatever stands around them: that a
    backslash may itself be escaped is not looked at, since `folded` drops backslashes anyway."""
    if b"\\" in text and _BACKSLASH.search(text) is not None:
        text = _without_line_signs(text)
        text = _UNICODE.sub(_from_unicode, text)
        text = _HEX.sub(_from_hex, text)
    return _PERCENT.sub(_from_percent, text) if b"%" in text else text


def without_cut_escape(text: bytes) -> bytes:
    """The text without an escape at its end that more text could complete."""
    cut = _CUT_ESCAPE.search(text, max(0, len(text) - 8))
    return text if cut is None else text[: cut.start()]


def _base64_cores(text: bytes) -> list[bytes]:
    """The signs of base64 that this text alone decides, at each alignment."""
    cores = []
    for before, undecided in ((0, 0), (1, 2), (2, 3)):
        signs = base64.b64encode(bytes(before) + text)
        cores.append(signs[undecided : (before + len(text)) * 8 // 6])
    return cores


def _url_safe(signs: bytes) -> bytes:
    return signs.replace(b"+", b"-").replace(b"/", b"_")


def _inner(secret: bytes) -> list[bytes]:
    """The secret in the encodings that another one may be wrapped around."""
    text = secret.decode("latin-1")
    cores = _base64_cores(secret)
    return [
        quote(secret, safe="").encode(),
        json.dumps(text)[1:-1].encode(),
        secret.hex().encode(),
        secret.hex().upper().encode(),
        *cores,
        *(_url_safe(core) for core in cores),
    ]


def _plain(secret: bytes) -> list[bytes]:
    """The secret as it may stand in text whose escapes are resolved no, one or two times."""
    forms = []
    for text in (secret, secret.replace(b" ", b"+")):
        once = unescaped(text)
        forms += [text, once, unescaped(once)]
    return forms


def spellings(secret: bytes) -> dict[bytes, str]:
    """What to look for in folded text, and what each spelling is called."""
    named = [("clear", form) for form in _plain(secret)]
    named += [("base64", core) for core in _base64_cores(secret)]
    named.append(("hex", secret.hex().encode()))
    for inner in _inner(secret):
        named += [("base64, twice encoded", core) for core in _base64_cores(inner)]
        named.append(("hex, twice encoded", inner.hex().encode()))
    found: dict[bytes, str] = {}
    for name, form in named:
        spelling = folded(form)
        if len(spelling) >= MIN_SPELLING:
            found.setdefault(spelling, name)
    return found
