"""How a secret may be written when it leaves: every spelling the scanner promises to know."""

import base64
import json
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

SECRET: Final = b"sk-live_AbC+d/ef9x~QzT0"


def _every_byte(form: str) -> Callable[[bytes], bytes]:
    return lambda secret: "".join(form % byte for byte in secret).encode()


def _twice(outer: Callable[[bytes], bytes], inner: Callable[[bytes], bytes]):
    return lambda secret: outer(inner(secret))


def _in_base64(before: bytes) -> Callable[[bytes], bytes]:
    return lambda secret: base64.b64encode(before + secret + b"tail")


def _json(secret: bytes) -> bytes:
    return json.dumps({"key": secret.decode("latin-1")}).encode()


def _percent(secret: bytes) -> bytes:
    return quote(secret, safe="").encode()


def _hex(secret: bytes) -> bytes:
    return secret.hex().encode()


WRITTEN: Final[dict[str, Callable[[bytes], bytes]]] = {
    "as it is": bytes,
    "in capitals": bytes.upper,
    "percent": _percent,
    "percent, every byte": _every_byte("%%%02x"),
    "percent, capitals": _every_byte("%%%02X"),
    "percent, twice": _twice(_percent, _every_byte("%%%02x")),
    "form": lambda secret: b"a=b&key=" + _percent(secret).replace(b"%20", b"+") + b"&c=d",
    "json": _json,
    "json, every sign": _every_byte("\\u%04x"),
    "json inside json": lambda secret: json.dumps({"body": _json(secret).decode()}).encode(),
    "json, percent": _twice(_every_byte("\\u%04X"), _percent),
    "json of percent, every byte": _twice(_every_byte("\\u%04X"), _every_byte("%%%02x")),
    "percent of json, every byte": _twice(_every_byte("%%%02X"), _every_byte("\\u%04x")),
    "hex escapes": _every_byte("\\x%02x"),
    "base64": base64.b64encode,
    "base64, second alignment": _in_base64(b"a"),
    "base64, third alignment": _in_base64(b"ab"),
    "basic": lambda secret: b"Basic " + base64.b64encode(b"user:" + secret),
    "base64, url-safe": lambda secret: base64.urlsafe_b64encode(b"?" + secret),
    "base64, wrapped": lambda secret: base64.encodebytes(b"x" * 47 + secret + b"y" * 50),
    "base64, percent": _twice(_percent, _in_base64(b"ab")),
    "base64, twice": _twice(_in_base64(b"a"), _in_base64(b"ab")),
    "base64 of percent": _twice(_in_base64(b"a"), _percent),
    "base64 of hex": _twice(_in_base64(b""), _hex),
    "base64 in json": _twice(_json, _in_base64(b"a")),
    "hex": _hex,
    "hex, capitals": lambda secret: secret.hex().upper().encode(),
    "hex, mixed": lambda secret: secret.hex().encode().swapcase().title(),
    "hex, wrapped": lambda secret: secret.hex(" ", 8).encode(),
    "hex of base64": _twice(_hex, base64.b64encode),
    "utf-16": lambda secret: secret.decode("latin-1").encode("utf-16-le"),
    "wrapped": lambda secret: secret[:9] + b"\r\n  " + secret[9:],
    "multipart": lambda secret: (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n'
        + secret
        + b"\r\n--b--\r\n"
    ),
}
