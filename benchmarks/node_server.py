"""What `bench_nodes.py` measures: our node service, or a bare gRPC server with the same mutual TLS.

Run as a program: makes devices and their certificates in DIRECTORY, serves until its standard input
ends, and answers each line there with a line of JSON: its memory and CPU time. The bare server
answers the same calls with constants and looks at nothing but the TLS handshake.
"""

import asyncio
import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from ulid import ULID

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.manager import IdentityManager
from palyra_fleet.identity.pairing_service import PairingService
from palyra_fleet.identity.records import ClientKind, VerifiedPairing
from palyra_fleet.nodes.listeners import NodeListeners, NodeListenerSettings, server_options
from palyra_fleet.nodes.node_rpc import NodeListener
from palyra_fleet.nodes.runtime_state import NodeRuntimeState
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.nodes.streams import StreamLimits
from palyra_fleet.wire.grpc_runtime import grpc
from palyra_fleet.wire.protobuf import common_pb2, node_pb2, node_pb2_grpc
from palyra_fleet.wire.sealing import MasterKey

ROOMY: Final = StreamLimits(per_device=1_000, per_source=100_000, in_all=100_000)


@dataclass(frozen=True, slots=True)
class Ready:
    """The first line on standard output. Devices and roots are in `devices_file`."""

    port: int
    pid: int
    devices_file: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident memory in bytes, CPU time in seconds."""

    resident_bytes: int
    cpu_s: float


class Bare(node_pb2_grpc.NodeServiceServicer):
    """Answers with constants."""

    async def RegisterNode(  # noqa: N802 (the protocol's name)
        self, request: node_pb2.RegisterNodeRequest, _context: object
    ) -> node_pb2.RegisterNodeResponse:
        return node_pb2.RegisterNodeResponse(
            v=1, device_id=request.device_id, accepted=True, reason="registered"
        )

    async def StreamNodeEvents(self, _requests: object, context: Any) -> None:  # noqa: N802
        answer = node_pb2.NodeEventResponse(
            v=1, event_id=common_pb2.CanonicalId(ulid="0" * 26), accepted=True, reason="accepted"
        )
        while await context.read() is not grpc.aio.EOF:
            await context.write(answer)


async def main(kind: str, directory: Path, devices: int) -> None:
    identity = await IdentityManager.start(directory, MasterKey.generate())
    state = await NodeRuntimeState.open(directory, now_unix_ms())
    try:
        file = directory / "devices.json"
        roots = identity.authority.trust_bundle_pem
        made = [await _device(identity) for _ in range(devices)]
        file.write_text(json.dumps({"roots": roots, "devices": made}))
        service = NodeService(
            state, PairingService(identity, state), identity, now_unix_ms, stream_limits=ROOMY
        )
        if kind == "bare":
            await _serve_bare(identity, file)
            return
        where = NodeListenerSettings(("127.0.0.1", 0), ("127.0.0.1", 0))
        async with NodeListeners.open(service, identity, where, now_unix_ms) as listeners:
            await _until_told(Ready(listeners.node_port, os.getpid(), str(file)))
    finally:
        await state.close()
        await identity.close()


async def _serve_bare(identity: IdentityManager, file: Path) -> None:
    own = identity.server_identity()
    server = grpc.aio.server(options=server_options(NodeListener.NODE))
    node_pb2_grpc.add_NodeServiceServicer_to_server(Bare(), server)
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.encode(), own.certificate_pem.encode())],
        root_certificates=identity.authority.trust_bundle_pem.encode(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    await _until_told(Ready(port, os.getpid(), str(file)))
    await server.stop(1)


async def _device(identity: IdentityManager) -> dict[str, str]:
    device_id, key = str(ULID()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, SHA256())
    verified = VerifiedPairing(device_id, ClientKind.NODE, "0" * 64, "0" * 64, "0" * 64)
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    issued = await identity.issue_for_request(verified, str(ULID()), pem)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "device_id": device_id,
        "certificate_pem": issued.certificate_pem,
        "private_key_pem": private.decode(),
    }


async def _until_told(ready: Ready) -> None:
    """Say where we are, then answer every line with our usage, until there are no more."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _tell(asdict(ready))
    while await reader.readline():
        _tell(asdict(usage()))


def usage() -> Usage:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    times = os.times()
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), times.user + times.system)


def _tell(fields: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
