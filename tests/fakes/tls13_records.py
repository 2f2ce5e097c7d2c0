"""A TLS 1.3 session whose handshake is OpenSSL's and whose records are written by hand.

So a test sends what no library would: as many key updates as it likes, or a byte a record.
Source: RFC 8446 sections 4.6.3, 5.2, 7.1 and 7.2.
"""

import asyncio
import hashlib
import hmac
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_UPDATE = b"\x18\x00\x00\x01\x00"  # not asking for one in return
_HANDSHAKE, _APPLICATION_DATA = 22, 23


class HandmadeTls:
    """`keys` is a file of this session's own; the context is made with 1.3 and without tickets."""

    def __init__(
        self, context: ssl.SSLContext, keys: Path, server_hostname: str | None = None
    ) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.keylog_filename = str(keys)
        is_client = server_hostname is not None
        if not is_client:
            context.num_tickets = 0
        self._keys = keys
        self._label = "CLIENT_TRAFFIC_SECRET_0" if is_client else "SERVER_TRAFFIC_SECRET_0"
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, not is_client, server_hostname)
        self._hash, self._secret, self._number = hashlib.sha384, b"", 0

    async def shake_hands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Afterwards only `key_updates` and `data` say what is sent."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                writer.write(self._out.read())
                self._in.write(await reader.read(1 << 16))
            else:
                writer.write(self._out.read())
                break
        cipher = self._tls.cipher()
        assert cipher is not None and cipher[0] == "TLS_AES_256_GCM_SHA384"
        found = [line.split() for line in self._keys.read_text().splitlines()]
        (secret,) = [words[2] for words in found if words[0] == self._label]
        self._secret = bytes.fromhex(secret)

    def key_updates(self, count: int) -> bytes:
        out = []
        for _ in range(count):
            out.append(self._sealed(_KEY_UPDATE, _HANDSHAKE))
            self._secret, self._number = self._expanded(b"traffic upd", 48), 0
        return b"".join(out)

    def data(self, payload: bytes, record_bytes: int) -> bytes:
        """This, with so many bytes in each record."""
        parts = range(0, len(payload), record_bytes)
        return b"".join(
            self._sealed(payload[at : at + record_bytes], _APPLICATION_DATA) for at in parts
        )

    def _sealed(self, content: bytes, kind: int) -> bytes:
        inner = content + bytes([kind])
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        number, vector = self._number.to_bytes(12), self._expanded(b"iv", 12)
        self._number += 1
        nonce = bytes(a ^ b for a, b in zip(number, vector, strict=True))
        return head + AESGCM(self._expanded(b"key", 32)).encrypt(nonce, inner, head)

    def _expanded(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label without a context; one block is enough."""
        full = b"tls13 " + label
        info = length.to_bytes(2) + bytes([len(full)]) + full + b"\0"
        return hmac.new(self._secret, info + b"\x01", self._hash).digest()[:length]
