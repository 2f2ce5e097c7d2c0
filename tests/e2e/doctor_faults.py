"""Faults that are planted in a running installation, one at a time, and taken back again."""

import datetime
import json
import resource
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from palyra_fleet.doctor.machine import serving_pid
from tests.e2e.place import Place

type Plant = Callable[[Place, Path], Iterator[list[str]]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, whose doctor is asked, and which check must say so."""

    name: str
    program: str
    check: str
    plant: Plant
    standing: str = "fail"


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before, mode = path.read_bytes(), path.stat().st_mode & 0o777
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
        path.chmod(mode)


def mode_of(name: str, mode: int) -> Plant:
    def plant(place: Place, _: Path) -> Iterator[list[str]]:
        path = place.home / name
        before = path.stat().st_mode & 0o777
        path.chmod(mode)
        yield []
        path.chmod(before)

    return plant


def content_of(name: str, make: Callable[[bytes], bytes]) -> Plant:
    def plant(place: Place, _: Path) -> Iterator[list[str]]:
        path = place.home / name
        with changed(path, make(path.read_bytes())):
            yield []

    return plant


def gone(name: str) -> Plant:
    def plant(place: Place, spare: Path) -> Iterator[list[str]]:
        path = place.home / name
        aside = path.rename(path.with_name(path.name + f".{spare.name}"))
        yield []
        aside.rename(path)

    return plant


def with_policy(make: Callable[[str], str]) -> Plant:
    """A policy beside the one in force."""

    def plant(place: Place, spare: Path) -> Iterator[list[str]]:
        file = spare / "policy.yaml"
        file.write_text(make(place.policy_file.read_text()))
        yield ["--policy", str(file)]

    return plant


def in_database(*statements: str) -> Plant:
    """Statements in a copy of the fleet's state."""

    def plant(place: Place, spare: Path) -> Iterator[list[str]]:
        spare.chmod(0o700)
        copy = spare / "fleet.sqlite3"
        with (
            closing(sqlite3.connect(place.home / "fleet" / "fleet.sqlite3")) as source,
            closing(sqlite3.connect(copy, isolation_level=None)) as target,
        ):
            source.backup(target)
            triggers = target.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            for (trigger,) in triggers.fetchall():
                target.execute(f"DROP TRIGGER {trigger}")
            for statement in statements:
                assert target.execute(statement).rowcount, statement
        copy.chmod(0o600)
        yield ["--state-dir", str(spare)]

    return plant


def empty_state(_: Place, spare: Path) -> Iterator[list[str]]:
    spare.chmod(0o700)
    (spare / "fleet.marker").write_bytes(b"there was state here\n")
    (spare / "fleet.marker").chmod(0o600)
    yield ["--state-dir", str(spare)]


def option(*arguments: str) -> Plant:
    def plant(_: Place, __: Path) -> Iterator[list[str]]:
        yield [*arguments]

    return plant


def few_descriptors(place: Place, _: Path) -> Iterator[list[str]]:
    pid = serving_pid(place.home / "run" / "fleet.sock")
    assert pid is not None
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (200, before[1]))
    yield []
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def ended_authority(place: Place, _: Path) -> Iterator[list[str]]:
    folder = place.home / "egress" / "ca"
    key = serialization.load_pem_private_key((folder / "root-key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    began = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    old = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    with changed(folder / "root.pem", old.public_bytes(serialization.Encoding.PEM)):
        yield []


def audit_log(make: Callable[[bytes], bytes], covers_seq: int = 0) -> Plant:
    """A copy of the proxy's state whose log was changed; the proxy goes on writing its own."""

    def plant(place: Place, spare: Path) -> Iterator[list[str]]:
        state = spare / "egress"
        shutil.copytree(place.home / "egress", state, ignore=shutil.ignore_patterns("*.sock"))
        state.chmod(0o700)
        log = state / "audit.jsonl"
        log.write_bytes(make(log.read_bytes()))
        if covers_seq:
            (state / "audit.checkpoint.json").write_text(
                json.dumps(
                    {
                        "kind": "checkpoint",
                        "at_unix_ms": 1,
                        "covers_seq": covers_seq,
                        "covers_sha256": "a" * 64,
                        "key_sha256": "b" * 64,
                        "signature": "",
                    }
                )
            )
        yield ["--state-dir", str(state)]

    return plant


def another_proxy(answer: bytes, answer_with_credentials: bytes) -> Plant:
    """What listens answers like this, whoever asks for what."""

    def plant(_: Place, __: Path) -> Iterator[list[str]]:
        listening = socket.create_server(("127.0.0.1", 0))
        serving = threading.Thread(target=serve, args=(listening,))
        serving.start()
        yield ["--proxy", f"127.0.0.1:{listening.getsockname()[1]}"]
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        serving.join()

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                asked = connection.recv(65536)
                is_with = b"Proxy-Authorization" in asked
                connection.sendall(answer_with_credentials if is_with else answer)

    return plant


OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED = b"HTTP/1.1 407 Palyra: egress.credentials_missing\r\n\r\n"
FOREIGN = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"


def other_mitmproxy(_: Place, spare: Path) -> Iterator[list[str]]:
    """Another version is found first; the test puts the folder on the path."""
    information = spare / "mitmproxy-99.0.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mitmproxy\nVersion: 99.0.0\n"
    )
    yield []


def _changed_line(content: bytes) -> bytes:
    first, rest = content.split(b"\n", 1)
    return first.replace(b'"at_unix_ms":1', b'"at_unix_ms":2', 1) + b"\n" + rest


def _failing_test(policy: str) -> str:
    case = "{profile: api, request: GET https://elsewhere.example/, expect: allow}"
    return f"{policy}tests:\n  - {case}\n"


FLEET_FAULTS = (
    Fault("the token can be read by others", "fleet", "token", mode_of("operator.token", 0o644)),
    Fault("the database can be read", "fleet", "files", mode_of("fleet/fleet.sqlite3", 0o640)),
    Fault("others may enter the home", "fleet", "home", mode_of(".", 0o755)),
    Fault("there is no token", "fleet", "token", gone("operator.token")),
    Fault("the token is empty", "fleet", "token", content_of("operator.token", lambda _: b"\n")),
    Fault(
        "the admin address is not loopback",
        "fleet",
        "listener.admin",
        content_of("admin.url", lambda _: b"http://192.0.2.1:7741\n"),
    ),
    Fault(
        "nobody answers at the admin address",
        "fleet",
        "listener.admin",
        content_of("admin.url", lambda _: b"http://127.0.0.1:1\n"),
    ),
    Fault("the workers' socket is gone", "fleet", "listener.socket", gone("run/fleet.sock")),
    Fault("the operators' socket is gone", "fleet", "listener.operators", gone("run/admin.sock")),
    Fault("all may use the socket", "fleet", "listener.socket", mode_of("run/fleet.sock", 0o666)),
    Fault(
        "an event was changed",
        "fleet",
        "store.fleet",
        in_database("UPDATE events SET actor = 'nobody' WHERE seq = 2"),
    ),
    Fault(
        "an event was removed",
        "fleet",
        "store.fleet",
        in_database("DELETE FROM events WHERE seq = 1"),
    ),
    Fault(
        "the end of the events was cut off",
        "fleet",
        "store.fleet",
        in_database("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)"),
    ),
    Fault(
        "a newer release wrote the state",
        "fleet",
        "store.fleet",
        in_database("UPDATE meta SET value = '999' WHERE key = 'schema_version'"),
    ),
    Fault(
        "the clock was set back",
        "fleet",
        "clock.set_back",
        in_database("UPDATE meta SET value = '4000000000000' WHERE key = 'high_water_unix_ms'"),
    ),
    Fault("the database is gone", "fleet", "store.fleet", empty_state),
    Fault("the disk is full", "fleet", "disk", option("--least-free-mib", "999999999")),
    Fault("too few descriptors", "fleet", "descriptors", few_descriptors),
)
EGRESS_FAULTS = (
    # before all that touch the CA: a proxy that sees its CA change writes the bundle anew
    Fault(
        "the bundle lacks our root",
        "egress",
        "ca.bundle",
        content_of("egress/ca/bundle.pem", lambda content: content[: len(content) // 2]),
    ),
    Fault("the CA's key can be read", "egress", "files", mode_of("egress/ca/root-key.pem", 0o644)),
    Fault("the CA's key is gone", "egress", "ca.proxy", gone("egress/ca/root-key.pem")),
    Fault("the CA has ended", "egress", "ca.proxy", ended_authority),
    Fault(
        "the CA is damaged",
        "egress",
        "ca.proxy",
        content_of("egress/ca/root.pem", lambda content: content[:200]),
    ),
    Fault(
        "the policy has a misspelt key",
        "egress",
        "policy",
        with_policy(lambda text: text.replace("profiles:", "profile:")),
    ),
    Fault("a test of the policy fails", "egress", "policy.tests", with_policy(_failing_test)),
    Fault("there is no policy", "egress", "policy", option("--policy", "/nonexistent/policy.yaml")),
    Fault(
        "a line of the audit log was changed",
        "egress",
        "audit",
        audit_log(_changed_line),
    ),
    Fault("the audit log was cut off", "egress", "audit", audit_log(bytes, 10**9)),
    Fault("a signed entry is another", "egress", "audit", audit_log(bytes, 1)),
    Fault("the audit log is gone", "egress", "audit", gone("egress/audit.jsonl")),
    Fault("the proxy lets all through", "egress", "refuses", another_proxy(OPEN, OPEN)),
    Fault("the proxy takes any credential", "egress", "refuses", another_proxy(REFUSED, OPEN)),
    Fault("something else answers", "egress", "refuses", another_proxy(FOREIGN, FOREIGN)),
    Fault("the proxy's socket is gone", "egress", "ready", gone("egress/admin.sock")),
    Fault("an untested mitmproxy", "egress", "mitmproxy", other_mitmproxy),
    Fault("the note is damaged", "egress", "note", content_of("egress.json", lambda _: b"{}")),
)
