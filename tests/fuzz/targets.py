"""Fuzz targets: bytes from strangers never raise anything but the errors that are documented.

Each target takes bytes and asserts what must hold of them. `fuzz_policy.py` runs one of them with
atheris until a crash, `test_fuzz_bounded.py` all of them for a bounded number of inputs.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from wsproto.frame_protocol import FrameProtocol

from palyra_egress.approvals.approvers import Approver, Approvers
from palyra_egress.approvals.envelope import TooManyApprovals, next_serial, read_lines
from palyra_egress.approvals.weighing import Proposal, weigh
from palyra_egress.audit.chain import ChainBroken, ChainHead, follow, walk
from palyra_egress.credentials.kv_client import KvFailure, KvMissing, secret_in_answer
from palyra_egress.credentials.patterns import Finding, PatternSet, Watched
from palyra_egress.credentials.stream_scan import StreamScanner
from palyra_egress.credentials.vault_format import Vault, VaultError, decode, encode
from palyra_egress.destination.hostname import (
    HostRefused,
    canonical_host,
    is_canonical_host,
    split_host_port,
)
from palyra_egress.destination.hostpattern import PatternRefused, parse_pattern
from palyra_egress.policy.case_lines import judge_line
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source, import_policy
from palyra_egress.policy.load import load_policy, load_policy_file, load_sources, read_files
from palyra_egress.policy.request_text import judge_request_from_url
from palyra_egress.proxy.doors.socks5 import (
    MAX_MESSAGE_BYTES,
    SocksRefused,
    SocksTarget,
    read_credentials,
    read_greeting,
    read_request,
)
from palyra_egress.proxy.http.request_head import RequestHead, check_head, head_end
from palyra_egress.proxy.websocket.websocket_frames import BrokenFrames, FoundLeaving, FrameStream
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest, Requester, RequestKind
from palyra_egress.verdict import NeedsResolution, Verdict
from palyra_fleet.wire.dsse import DsseEnvelope, EnvelopeRefused, open_envelope
from palyra_fleet.wire.sealing import MasterKey

type Target = Callable[[bytes], None]
FILE: Final = "fuzz.yaml"
VAULT_KEY: Final = MasterKey.of(bytes(range(32)))
VAULT: Final = Vault("0" * 32, 1).with_record("a/b", "some-secret", VAULT_KEY, 0)
ASKER: Final = Requester("worker", "lease", "p")
POLICY: Final = load_policy(
    b"version: 1\nname: fuzz\n"
    b"rules: [{id: a, hosts: [.a.test, 10.0.0.0/8], paths: [/a/**], private: [10.0.0.0/8]}]\n"
    b"deny: [{id: d, hosts: [no.a.test]}]\n"
    b"profiles: {p: [a]}\n",
    FILE,
)
SECRETS: Final = (b"%41\\n-abcdefgh", b"ababababac")
WATCHED: Final = (PatternSet([Watched(one, Reason.CANARY, "fuzz") for one in SECRETS]),)
FRAGMENT: Final = b"version: 1\nname: secret\nrules: [{id: s, hosts: [s.test]}]\n"
APPROVERS: Final = Approvers((Approver("ada", bytes([7] * 32)),))
KEY_ID: Final = APPROVERS.people[0].key_id
_TYPE: Final = "application/x-fuzz"
_KEY: Final = bytes(range(32))


def _text(data: bytes) -> str:
    """Any text at all, half surrogate pairs included."""
    return data.decode("utf-8", "surrogateescape")


def policy_file(data: bytes) -> None:
    """A file loads, or is refused with problems that have a place."""
    try:
        policy = load_policy(data, FILE)
    except PolicyFileError as error:
        assert error.problems
        assert all(p.position.line >= 1 and p.position.column >= 1 for p in error.problems)
        return
    asked = judge_request_from_url("GET", "http://169.254.169.254/", ASKER)
    assert not decide(policy, asked, (), 0).allowed


def policy_files(data: bytes) -> None:
    """Files that include each other, and a link to anywhere, load or are refused with problems
    that have a place; nothing outside the folder is ever read."""
    outer, base, team, link, *_ = [*data.split(b"\0", 3), b"", b"", b""]
    with TemporaryDirectory() as outside:
        Path(outside, "secret.yaml").write_bytes(FRAGMENT)
        inside = Path(outside, "policies")
        (inside / "team").mkdir(parents=True)
        for name, source in {"outer": outer, "base": base, "team/rules": team}.items():
            (inside / f"{name}.yaml").write_bytes(source)
        with suppress(OSError, ValueError):
            (inside / "link.yaml").symlink_to(_text(link))
        try:
            policy = load_policy_file(inside / "outer.yaml")
        except PolicyFileError as error:
            assert error.problems
            assert all(p.position.line >= 1 and p.position.column >= 1 for p in error.problems)
            return
        files = [Path(file).resolve() for file in policy.spec.files]
        assert all(file.is_relative_to(inside.resolve()) for file in files)
        assert len(set(files)) == len(files)
        sources = read_files(inside / "outer.yaml", "outer.yaml").sources
        assert load_sources(sources, "outer.yaml").digest == policy.digest


def approvals_file(data: bytes) -> None:
    """Whatever stands in an approvals file, nothing that nobody signed counts."""
    try:
        lines = read_lines(data)
    except TooManyApprovals:
        return
    weighing = weigh(APPROVERS, lines, Proposal("fuzz", "0" * 64), None, None)
    assert not weighing.is_enough and not weighing.approved_by
    assert next_serial(lines, "0" * 64) >= 1


def imported_file(data: bytes) -> None:
    """Another tool's file is translated into a policy that loads, or refused."""
    source = list(Source)[data[0] % len(Source)] if data else Source.AWF
    try:
        found = import_policy(source, data[1:], FILE, None)
    except (ImportRefused, PolicyFileError):
        return
    load_policy(found.text.encode(), FILE)


def request_fields(data: bytes) -> None:
    """Whatever stands in a request, the judge answers; a name is resolved only where allowed."""
    fields = [_text(part) for part in data.split(b"\0", 5)]
    method, host, path, query, scheme, answers = (*fields, *[""] * 6)[:6]
    asked = EgressRequest(
        RequestKind.CONNECT if method == "CONNECT" else RequestKind.REQUEST,
        method,
        "http" if scheme == "http" else "https",
        CanonicalHost(host),
        443 if len(data) % 2 else len(data),
        path,
        query,
        ASKER,
    )
    first = precheck(POLICY, asked, 0)
    final = decide(POLICY, asked, answers.split(), 0)
    assert final.reason is not Reason.INTERNAL
    if isinstance(first, NeedsResolution):
        assert is_canonical_host(first.host)
        assert decide(POLICY, asked, answers.split(), 0, judged=first) == final
    else:
        assert first == final
    assert bool(final.pinned) is final.allowed


def hostname(data: bytes) -> None:
    """A host is canonical or refused; canonicalising twice changes nothing."""
    text = _text(data)
    try:
        host = canonical_host(text)
    except HostRefused:
        pass
    else:
        assert is_canonical_host(host) and canonical_host(host) == host and host.isascii()
    try:
        host, port = split_host_port(text)
    except HostRefused:
        pass
    else:
        assert is_canonical_host(host) and (port is None or 1 <= port <= 65535)
    with suppress(PatternRefused):
        assert parse_pattern(text).text == text


def url(data: bytes) -> None:
    """A URL is a canonical request or refused."""
    try:
        asked = judge_request_from_url("GET", _text(data), ASKER)
    except HostRefused:
        return
    assert is_canonical_host(asked.host)
    assert isinstance(precheck(POLICY, asked, 0), Verdict | NeedsResolution)


def case_line(data: bytes) -> None:
    """Every line of JSON, or of anything else, gets one answer."""
    answer = judge_line(POLICY, data, "p", 0)
    assert answer["effect"] in ("allow", "deny")


def audit_line(data: bytes) -> None:
    """A line follows the chain or breaks it."""
    for check in (lambda: follow(ChainHead(), data, FILE), lambda: list(walk([data], FILE))):
        try:
            check()
        except ChainBroken:
            continue


def dsse_envelope(data: bytes) -> None:
    """An envelope that nobody signed is refused, however it is written."""
    try:
        envelope = DsseEnvelope.model_validate_json(data)
    except ValueError:
        return
    try:
        open_envelope(envelope, _TYPE, _KEY)
    except EnvelopeRefused:
        return
    raise AssertionError("an envelope was opened without a signature")


def request_head(data: bytes) -> None:
    """A request head is read or refused; what is read is printable."""
    end = head_end(data)
    assert end is None or 0 < end <= len(data)
    head = check_head(data)
    assert isinstance(head, RequestHead | Reason)
    if isinstance(head, RequestHead):
        assert head.target.isprintable() and " " not in head.target


def body_stream(data: bytes) -> None:
    """Whatever a body is and however it is cut, what leaves is its unchanged beginning, all of it
    unless something is found or cannot be read, and a secret that stands there is found."""
    coding = ("", "gzip", "deflate")[data[0] % 3] if data else ""
    size = 1 + data[1] % 32 if len(data) > 1 else 1
    scanner, body, out = StreamScanner(WATCHED, coding), data[2:], b""
    stop = None
    for start in range(0, len(body), size):
        passage = scanner.push(body[start : start + size])
        out, stop = out + passage.data, passage.stop
        if stop is not None:
            break
    else:
        passage = scanner.finish()
        out, stop = out + passage.data, passage.stop
    assert body.startswith(out)
    assert stop is not None or out == body
    if not coding and any(secret in body for secret in SECRETS):
        assert isinstance(stop, Finding)


def vault_file(data: bytes) -> None:
    """The bytes of a vault: without the key nobody makes one that opens and says something else."""
    try:
        found = decode(data, VAULT_KEY, FILE)
    except VaultError as error:
        assert str(error).startswith(f"{FILE}: ")
    else:
        assert found == VAULT


def kv_answer(data: bytes) -> None:
    """The body of a KV server's answer."""
    for is_version_1 in (True, False):
        with suppress(KvFailure, KvMissing):
            found = secret_in_answer(data, is_version_1, 0)
            assert all(isinstance(text, str) for text in found.fields.values())


def websocket_frames(data: bytes) -> None:
    """One direction of a WebSocket: what goes on is frames that the other side can read, and no
    watched value is whole in them, however the bytes were cut."""
    for from_worker in (True, False):
        stream = FrameStream(from_worker, lambda: StreamScanner(WATCHED))
        out, cut = b"", 1 + len(data) % 7
        with suppress(BrokenFrames, FoundLeaving):
            for at in range(0, len(data), cut):
                out += stream.take(data[at : at + cut], 1 << 20)
        reader = FrameProtocol(client=not from_worker, extensions=[])
        reader.receive_bytes(out)
        said = b""
        for frame in reader.received_frames():
            payload = frame.payload
            if not frame.opcode.iscontrol():
                said += payload.encode() if isinstance(payload, str) else bytes(payload)
        assert not any(secret in said for secret in SECRETS)


def socks_message(data: bytes) -> None:
    """The messages of SOCKS5: each is read, waited for, or refused with an answer that is short."""
    for read in (read_greeting, read_credentials, read_request):
        try:
            found = read(data)
        except SocksRefused as refused:
            assert len(refused.answer) <= 10
        else:
            assert found is not None or len(data) < MAX_MESSAGE_BYTES
            if isinstance(found, tuple) and isinstance(found[0], SocksTarget):
                assert is_canonical_host(found[0].host)
                assert 1 <= found[0].port <= 65535


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        policy_file,
        policy_files,
        approvals_file,
        imported_file,
        request_fields,
        hostname,
        url,
        case_line,
        audit_line,
        dsse_envelope,
        request_head,
        body_stream,
        vault_file,
        kv_answer,
        websocket_frames,
        socks_message,
    )
}
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "policy_file": (
        b"version: 1\nname: x\nrules: [{id: a, hosts: [a.test], until: 2027-01-01T00:00:00Z}]\n"
        b"profiles: {p: [a]}\ntests: [{profile: p, request: GET https://a.test/, expect: allow}]",
    ),
    "policy_files": (
        b"version: 1\nname: x\ninclude: [base.yaml, team/rules.yaml]\nprofiles: {p: [a, b]}\n\0"
        b"version: 1\nname: y\nrules: [{id: a, hosts: [a.test]}]\n\0"
        b"version: 1\nname: z\nrules: [{id: b, hosts: [b.test]}]\n",
        b"version: 1\nname: x\ninclude: [link.yaml]\n\0\0\0../secret.yaml",
        b"version: 1\nname: x\ninclude: [link.yaml, base.yaml]\n\0"
        b"version: 1\nname: y\ninclude: [team/rules.yaml]\n\0\0team",
        b"version: 1\nname: x\ninclude: [link.yaml]\nprofiles: {p: []}\n\0\0\0outer.yaml",
    ),
    "approvals_file": (
        b'{"payloadType":"application/vnd.palyra.policy-approval.v1+json","payload":"e30=",'
        b'"signatures":[{"keyid":"' + KEY_ID.encode() + b'","sig":"AAAA"}]}\n{}\n',
    ),
    "imported_file": (
        b"\0version: v1\nservices: [{name: a, action: enforce, allowed_domains: ['*.a.test']}]",
        b"\1domains: ['*.a.test']\nrules: [{host: a.test, methods: [GET], paths: [/v1/*]}]",
        b"\2services: [{name: abc, host: 'a.test:8443/v1/*', auth: {type: passthrough}}]",
        b'\3{"network": {"allowedDomains": ["*.a.test:443"], "deniedDomains": ["*:80"]}}',
        b"\4a.test, https://*.b.test # c",
    ),
    "vault_file": (encode(VAULT, VAULT_KEY),),
    "kv_answer": (
        b'{"data": {"token": "some-secret"}, "lease_duration": 60}',
        b'{"data": {"data": {"a": "x"}, "metadata": {"deletion_time": "2030-01-01T00:00:00Z"}}}',
    ),
    "websocket_frames": (
        b"\x81\x85\0\0\0\0hello\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
        b"\x01\x82\x01\x02\x03\x04hj\x80\x80\0\0\0\0",
        b"\x02\x05%41\\n\x80\x08-abcdefg\x82\x01h",
        b"\x82\x7e\x00\x7e" + b"x" * 126,
    ),
    "socks_message": (
        b"\x05\x02\x00\x02",
        b"\x01\x01u\x01p",
        b"\x05\x01\x00\x03\x06a.test\x01\xbb",
        b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
        b"\x05\x01\x00\x04" + bytes(15) + b"\x01\x01\xbb",
    ),
    "request_fields": (b"GET\0a.test\0/a/b\0q=1\0https\x00203.0.114.1", b"CONNECT\0x.a.test"),
    "hostname": (
        b"xn--b888888888888888888888888888ea.a",
        b"xn--bcher-kva.example",
        b"[::ffff:127.0.0.1]:443",
        b"0x7f.1",
        b"*.a.test",
    ),
    "url": (b"https://a.test:443/a/%2F?q", b"http://[::1]/"),
    "case_line": (b'{"id": 1, "method": "GET", "url": "https://a.test/a", "sni": "a.test"}',),
    "audit_line": (b'{"previous_sha256":"0","seq":1,"sha256":"0"}\n',),
    "dsse_envelope": (b'{"payloadType":"application/x-fuzz","payload":"","signatures":[]}',),
    "request_head": (b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",),
    "body_stream": (
        b"\0\4a=b&c=%2541%5cn-abcdefgh&d",
        b"\0\1\\u0025\\u0034\\u0031\\\\n-abc",
        b"\1\5\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0",
        b"\2\2\x03\0",
    ),
}
