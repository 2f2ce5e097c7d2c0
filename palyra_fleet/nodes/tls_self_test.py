"""A test at every start: does TLS here refuse what it must, and accept what it should?

A listener is made for it the way the real ones are, with a throwaway authority, on a free loopback
port, with one method that says yes, in the dialect of that listener (gRPC, or HTTP/1.1). Real
handshakes then try it: a good certificate must get
through; none, another authority's, an expired one, one not valid yet, TLS 1.2, and a resumed
session must not. What a library silently stopped to check would be seen here, before any node is
served. What TLS does not look at (profile of the leaf, revocation) is the gate's and has tests.
"""

import asyncio
import socket
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity import certificate_profiles as profiles
from palyra_fleet.identity.authority import ServerIdentity
from palyra_fleet.nodes.errors import TlsUnsound
from palyra_fleet.nodes.tls_front import Arrivals
from palyra_fleet.wire.grpc_runtime import grpc

_DEVICE: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
_HOUR_MS: Final = 3_600_000
_WITHIN_S: Final = 10.0
_METHOD: Final = "/palyra.selftest/Ask"
_HTTP2_BEGIN: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SERVER_NAME: Final = "palyrad-node-rpc"


class SelfTestAuthority:
    """A throwaway root, and what it signs."""

    def __init__(self, now_unix_ms: int) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        certificate = profiles.authority_certificate(key, serial, now_unix_ms)
        self._now = now_unix_ms
        self._signer = profiles.Signer(certificate, key)
        self.trust_bundle_pem = _pem(certificate)
        self._server = self._make_server_identity()

    @property
    def authority(self) -> "SelfTestAuthority":
        return self

    def server_identity(self) -> ServerIdentity:
        """One and the same: what resumes must meet the context it came from."""
        return self._server

    def _make_server_identity(self) -> ServerIdentity:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = profiles.server_certificate(
            self._signer,
            key.public_key(),
            (_SERVER_NAME,),
            x509.random_serial_number(),
            self._now,
            _HOUR_MS,
        )
        end = self._now + _HOUR_MS
        return ServerIdentity(_pem(certificate), _key_pem(key), "self-test", end, end)

    def device(self, from_unix_ms: int) -> "SelfTestClient":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = profiles.device_certificate(
            self._signer,
            key.public_key(),
            _DEVICE,
            "self-test.invalid",
            x509.random_serial_number(),
            from_unix_ms,
            _HOUR_MS,
        )
        return SelfTestClient(_pem(certificate), _key_pem(key))


@dataclass(frozen=True, slots=True)
class SelfTestClient:
    """A certificate and its key, PEM."""

    certificate_pem: str
    private_key_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Handshake:
    session: ssl.SSLSession | None
    resumed: bool


class Dialect(Protocol):
    """How one asks a listener whether it takes us."""

    alpn: str
    greeting: bytes
    """What makes the listener say something, once TLS is done."""

    async def ask(
        self, port: int, server: SelfTestAuthority, client: SelfTestClient | None
    ) -> str | None:
        """`yes` from a listener that takes us; None from one that refused the handshake."""


async def tls_self_test(port: int, ours: SelfTestAuthority, dialect: Dialect) -> None:
    """Try a listener on loopback that trusts `ours` and says yes. Raises TlsUnsound with what went
    wrong."""
    now = now_unix_ms()
    foreign = SelfTestAuthority(now)
    good = ours.device(now)
    bad: dict[str, SelfTestClient | None] = {
        "a client without a certificate": None,
        "a client with another authority's certificate": foreign.device(now),
        "a client whose certificate has expired": ours.device(now - 2 * _HOUR_MS),
        "a client whose certificate is not valid yet": ours.device(now + 2 * _HOUR_MS),
    }
    if await dialect.ask(port, ours, good) != "yes":
        raise TlsUnsound("a client with a good certificate was refused")
    for what, client in bad.items():
        if await dialect.ask(port, ours, client) is not None:
            raise TlsUnsound(f"{what} got through")
    await asyncio.to_thread(_raw_attempts, port, ours, good, dialect)


class Yes(grpc.GenericRpcHandler):
    """One method; says whether the session is one that the gate takes."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        async def answer(_: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
            sound = self._arrivals.peer_of(context.peer()).session_is_sound
            return b"yes" if sound else b"no"

        return grpc.unary_unary_rpc_method_handler(answer)


class GrpcDialect:
    """The node listener's."""

    alpn = "h2"
    greeting = _HTTP2_BEGIN

    async def ask(
        self, port: int, server: SelfTestAuthority, client: SelfTestClient | None
    ) -> str | None:
        return await _ask(port, server, client)


class HttpDialect:
    """That of the API for other machines."""

    alpn = "http/1.1"
    greeting = b"GET / HTTP/1.1\r\nHost: " + _SERVER_NAME.encode() + b"\r\n\r\n"

    async def ask(
        self, port: int, server: SelfTestAuthority, client: SelfTestClient | None
    ) -> str | None:
        return await asyncio.to_thread(self._ask, port, server, client)

    def _ask(
        self, port: int, server: SelfTestAuthority, client: SelfTestClient | None
    ) -> str | None:
        with tempfile.TemporaryDirectory() as scratch:
            context = _client_context(Path(scratch), server, client, self)
            found = _handshake(port, context, None, self)
        return None if found is None else "yes"


async def _ask(port: int, server: SelfTestAuthority, client: SelfTestClient | None) -> str | None:
    """The answer, or None if there is none."""
    credentials = grpc.ssl_channel_credentials(
        server.trust_bundle_pem.encode(),
        None if client is None else client.private_key_pem.encode(),
        None if client is None else client.certificate_pem.encode(),
    )
    options = [("grpc.ssl_target_name_override", _SERVER_NAME), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        try:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
            answer = await ask(b"", timeout=_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return None
            return error.code().name
    return answer.decode()


def _raw_attempts(
    port: int, server: SelfTestAuthority, client: SelfTestClient, dialect: Dialect
) -> None:
    """TLS 1.2 and resumption, which a gRPC client cannot be told to try."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        context = _client_context(folder, server, client, dialect)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if _handshake(port, context, None, dialect) is not None:
            raise TlsUnsound("a client with TLS 1.2 got through")
        context = _client_context(folder, server, client, dialect)
        first = _handshake(port, context, None, dialect)
        if first is None:
            raise TlsUnsound("a client with TLS 1.3 was refused")
        again = _handshake(port, context, first.session, dialect)
        if again is None or again.resumed:
            raise TlsUnsound("a session was resumed, so its certificate was not checked again")


def _client_context(
    folder: Path, server: SelfTestAuthority, client: SelfTestClient | None, dialect: Dialect
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=server.trust_bundle_pem)
    if client is not None:
        file = folder / "client.pem"
        file.touch(mode=0o600)
        file.write_text(client.certificate_pem + client.private_key_pem)
        context.load_cert_chain(file)
    context.set_alpn_protocols([dialect.alpn])
    return context


def _handshake(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None, dialect: Dialect
) -> _Handshake | None:
    """What it came to, once the server has spoken; None if it refused."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_WITHIN_S) as plain:
            wrapped = context.wrap_socket(plain, server_hostname=_SERVER_NAME, session=session)
            with wrapped:
                # in TLS 1.3 a server refuses after the client has finished: read to hear of it
                wrapped.sendall(dialect.greeting)
                if not wrapped.recv(1):
                    return None
                return _Handshake(wrapped.session, bool(wrapped.session_reused))
    except OSError:
        return None


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
