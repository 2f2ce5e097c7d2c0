"""Asks the proxy for what it must refuse, over a real connection, and looks whether it does.

Each question is one connection with one request and no lease behind it, so nothing may ever come
through. The answer must be ours: a reason of ours in the status phrase, with 407 where there were
no credentials, and 407 or 403 where there were made-up ones. A proxy that answers anything else
lets strangers out, or is not the one that we think it is.
"""

import base64
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ulid import ULID

from palyra_egress.doctor.metadata_targets import METADATA_URLS
from palyra_egress.installation import written
from palyra_fleet.doctor.finding import Finding, fail, ok, why_not

WITHIN_S: Final = 5.0
MAX_HEAD_BYTES: Final = 16 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (?P<status>[0-9]{3}) (?P<phrase>[^\r\n]{0,200})\r\n")
_OURS: Final = b"Palyra: egress."
_WITHOUT: Final = frozenset({407})
_WITH_MADE_UP: Final = frozenset({403, 407})


@dataclass(frozen=True, slots=True)
class Probe:
    """One question: what it is, and the request line's first two words."""

    what: str
    method: str
    target: str
    host: str
    with_credentials: bool


def probes(forbidden: str = "127.0.0.1:7741") -> tuple[Probe, ...]:
    """Everything that is asked. `forbidden` is a listener of the fleet."""
    host, target = "packages.example", "packages.example:443"
    metadata = "169.254.169.254"
    return (
        Probe("without credentials", "CONNECT", target, host, False),
        Probe("with the credential of no lease", "CONNECT", target, host, True),
        Probe("plain HTTP without credentials", "GET", "http://a.example/", "a.example", False),
        Probe("to the fleet's own listener", "CONNECT", forbidden, forbidden, True),
        *(
            Probe("to a metadata service", "GET", METADATA_URLS[0], metadata, is_with)
            for is_with in (False, True)
        ),
    )


def refuses(address: tuple[str, int], asked: tuple[Probe, ...]) -> Iterator[Finding]:
    """Ask everything, if anything listens; one finding for each answer that is not ours."""
    faults = 0
    try:
        socket.create_connection(address, timeout=WITHIN_S).close()
    except OSError as error:
        said = f"nothing answers at {written(address)}: {why_not(error)}"
        remedy = "start it with `palyra-egress up`, or pass --proxy HOST:PORT of one that runs"
        yield fail("refuses", said, remedy)
        return
    for probe in asked:
        problem = _problem(address, probe)
        if problem:
            faults += 1
            remedy = "take it out of service until it refuses; find out what listens there"
            yield fail("refuses", f"{probe.what}: {problem}", remedy)
    if not faults:
        yield ok("refuses", f"{written(address)} refuses all {len(asked)} that it must")


def _problem(address: tuple[str, int], probe: Probe) -> str:
    try:
        head = _ask(address, probe)
    except OSError as error:
        return f"nothing answers at {written(address)}: {why_not(error)}"
    found = _STATUS.match(head)
    if found is None:
        return "the answer is not HTTP"
    status, phrase = int(found["status"]), found["phrase"]
    wanted = _WITH_MADE_UP if probe.with_credentials else _WITHOUT
    if status in wanted and phrase.startswith(_OURS):
        return ""
    said = phrase.decode("latin-1")
    return f"answered {status} {said}; expected {min(wanted)} with a reason of ours"


def _ask(address: tuple[str, int], probe: Probe) -> bytes:
    lines = [f"{probe.method} {probe.target} HTTP/1.1", f"Host: {probe.host}"]
    if probe.with_credentials:
        made_up = f"{ULID()}:{secrets.token_urlsafe(32)}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(made_up).decode()}")
    request = "\r\n".join([*lines, "", ""]).encode("ascii")
    with socket.create_connection(address, timeout=WITHIN_S) as connection:
        connection.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD_BYTES:
            more = connection.recv(4096)
            if not more:
                break
            head += more
    return head
