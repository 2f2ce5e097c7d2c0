"""How fast bodies are looked through for secrets, beside plain passes over the same bytes.

Each row is MB/s of one kind of body in pieces of 64 KiB, with 0, 10 and 1 000 secrets, and as a
ratio to two plain passes of the same run: `lower` (one C loop that touches every byte) and `hash`
(SHA-256, what a proxy that signs bodies would pay). The machine's speed cancels out of the ratios.
With nothing to look for the proxy makes no scanner at all; `0` is a scanner that was made anyway.
"""

import argparse
import base64
import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from palyra_egress.credentials.patterns import PatternSet, Watched
from palyra_egress.credentials.stream_scan import StreamScanner
from palyra_egress.reasons import Reason

PIECE = 64 * 1024
COUNTS = (0, 10, 1000)
LINE = (
    b'{"role": "user", "content": "def f(x):\\n    return \\"x\\" * 2  # and so on, and so on"}\n'
)
WORDS = b"The quick brown fox jumps over the lazy dog, and the dog looks on in some surprise.\n"


def bodies(size: int) -> dict[str, bytes]:
    noise = os.urandom(size)
    return {
        "text": (WORDS * (size // len(WORDS) + 1))[:size],
        "json": (LINE * (size // len(LINE) + 1))[:size],
        "base64": base64.b64encode(noise)[:size],
        "random": noise,
        "percent": (b"%41%42a" * (size // 7 + 1))[:size],
    }


def secrets(count: int) -> PatternSet:
    values = (b"sk-" + base64.urlsafe_b64encode(os.urandom(30)) for _ in range(count))
    return PatternSet(Watched(value, Reason.CREDENTIAL_LEAK, "x") for value in values)


def best_s(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def plain_pass(pieces: list[bytes]) -> None:
    for piece in pieces:
        piece.lower()


def hash_pass(pieces: list[bytes]) -> None:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)


def scan(pieces: list[bytes], sets: tuple[PatternSet, ...], coding: str = "") -> None:
    scanner = StreamScanner(sets, coding)
    for piece in pieces:
        assert scanner.push(piece).stop is None
    assert scanner.finish().stop is None


def cut(body: bytes) -> list[bytes]:
    return [body[at : at + PIECE] for at in range(0, len(body), PIECE)]


def measure(size: int, rounds: int) -> dict[str, Any]:
    """Seconds for every body and number of secrets, and what the plain passes took."""
    sets: dict[int, tuple[PatternSet, ...]] = {}
    compiled_ms: dict[int, float] = {}
    for count in COUNTS:
        started = time.perf_counter()
        sets[count] = (secrets(count),) if count else ()
        compiled_ms[count] = (time.perf_counter() - started) * 1000
    rows = {}
    for name, body in bodies(size).items():
        pieces = cut(body)
        rows[name] = {
            "lower": best_s(partial(plain_pass, pieces), rounds),
            "hash": best_s(partial(hash_pass, pieces), rounds),
            **{str(n): best_s(partial(scan, pieces, sets[n]), rounds) for n in COUNTS},
        }
    mixed = base64.b64encode(os.urandom(size // 2)) + bodies(size // 2)["text"]
    packed = cut(gzip.compress(mixed[:size], 1))
    inflated_s = best_s(partial(scan, packed, sets[10], "gzip"), rounds)
    return {"bytes": size, "compiled_ms": compiled_ms, "seconds": rows, "gzip_seconds": inflated_s}


def show(found: dict[str, Any]) -> None:
    size = found["bytes"]
    for count, took_ms in found["compiled_ms"].items():
        print(f"{count} secrets compiled in {took_ms:.0f} ms")
    print(f"\nMB/s {'':9}{'lower':>8}{'hash':>8}" + "".join(f"{count:>8}" for count in COUNTS))
    for name, taken_s in found["seconds"].items():
        print(f"{name:14}" + "".join(f"{size / one / 1e6:8.0f}" for one in taken_s.values()))
        ratios = [
            f"{n} secrets {taken_s[str(n)] / taken_s['lower']:.1f} plain passes,"
            f" {taken_s[str(n)] / taken_s['hash']:.1f} hashes"
            for n in COUNTS[1:]
        ]
        print(f"{'':14}{'; '.join(ratios)}")
    print(f"\ngzip, 10 secrets: {size / found['gzip_seconds'] / 1e6:.0f} MB/s of plain text")
    print(f"load average {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.megabytes << 20, given.rounds)
    if given.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
