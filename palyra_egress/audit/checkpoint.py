"""Signed checkpoints: the proxy's word, under its own key, on where the chain stood at a time.

A checkpoint names the newest entry before it (`covers_seq`, `covers_sha256`) and the time, signed
with the proxy's Ed25519 key. It stands in the log as an entry of its own, and the newest one also
in a small file beside the log: an entry proves to anybody with the public key who wrote everything
before it, and the file proves that a log which ends earlier was cut. Keep copies of the file on
another machine: whoever can rewrite this one can rewrite both. Pure, but for the two functions that
read and replace the file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from palyra_egress.audit.chain import AuditFields, ChainBroken, ChainHead
from palyra_fleet.private_files import replace
from palyra_fleet.wire.keys import SigningKey, signature_is_valid, thumbprint_sha256

KIND: Final = "checkpoint"
_PURPOSE: Final = b"palyra-audit-checkpoint-v1"


def _message(covers: ChainHead, at_unix_ms: int) -> bytes:
    return b"%s\n%d\n%s\n%d\n" % (_PURPOSE, covers.seq, covers.sha256.encode(), at_unix_ms)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one checkpoint claims; `check` says whether a key really claims it."""

    covers: ChainHead
    at_unix_ms: int
    key_sha256: str
    signature: str

    @classmethod
    def sign(cls, covers: ChainHead, at_unix_ms: int, key: SigningKey) -> Self:
        signature = key.sign(_message(covers, at_unix_ms)).hex()
        return cls(covers, at_unix_ms, thumbprint_sha256(key.public_key), signature)

    @classmethod
    def of(cls, entry: AuditFields, where: str) -> Self:
        """The checkpoint in an entry or file. Raises ChainBroken if it is not one."""
        match entry:
            case {
                "kind": "checkpoint",
                "covers_seq": int(seq),
                "covers_sha256": str(digest),
                "at_unix_ms": int(at_unix_ms),
                "key_sha256": str(key_sha256),
                "signature": str(signature),
            }:
                return cls(ChainHead(seq, digest), at_unix_ms, key_sha256, signature)
            case _:
                raise ChainBroken(f"{where}: not a checkpoint")

    @property
    def fields(self) -> AuditFields:
        return {
            "kind": KIND,
            "at_unix_ms": self.at_unix_ms,
            "covers_seq": self.covers.seq,
            "covers_sha256": self.covers.sha256,
            "key_sha256": self.key_sha256,
            "signature": self.signature,
        }

    def check(self, public_key: bytes, where: str) -> None:
        """Raises ChainBroken unless this key signed exactly this."""
        if self.key_sha256 != thumbprint_sha256(public_key):
            raise ChainBroken(
                f"{where}: signed with the key {self.key_sha256}, expected"
                f" {thumbprint_sha256(public_key)}"
            )
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            signature = b""
        if not signature_is_valid(public_key, signature, _message(self.covers, self.at_unix_ms)):
            raise ChainBroken(f"{where}: the checkpoint's signature is not valid")


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file. Raises ChainBroken, or OSError."""
    try:
        entry = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ChainBroken(f"{path}: not a checkpoint: not JSON") from error
    if not isinstance(entry, dict):
        raise ChainBroken(f"{path}: not a checkpoint: expected a JSON object")
    return Checkpoint.of(entry, str(path))


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file in one durable step. Raises OSError."""
    replace(path, json.dumps(checkpoint.fields, sort_keys=True).encode() + b"\n")
