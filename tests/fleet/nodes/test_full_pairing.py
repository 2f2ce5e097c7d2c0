"""A whole life of a node, by a client written from the published protocol alone.

Raw gRPC calls and `cryptography`: nothing of the server's code is used but the generated messages.
The fleet is the program itself, operated by its own command line.
"""

import asyncio
import hashlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from palyra_fleet.wire.grpc_runtime import grpc

PACKAGE = "/palyra.node.v1.NodeService/"
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PROGRAM = (sys.executable, "-m", "palyra_fleet.cli.main")


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer, by number."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def fields(raw: bytes) -> dict[int, Any]:
    """The last value of each field of a message."""
    found: dict[int, Any] = {}
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = raw[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(raw):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3] = number()
        else:
            assert tag & 7 == 2
            size = number()
            found[tag >> 3] = raw[place : place + size]
            place += size
    return found


@dataclass(frozen=True, slots=True)
class Program:
    """The fleet as a process, and its command line."""

    home: Path
    process: asyncio.subprocess.Process
    enrolment: str
    node: str
    root: bytes

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, *arguments, env=environment(self.home),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def json(self, *arguments: str) -> Any:
        code, out, err = await self(*arguments, "-o", "json")
        assert code == 0, err
        return json.loads(out)

    def channel(self, address: str, key: bytes | None = None, chain: bytes | None = None) -> Any:
        options = [
            ("grpc.ssl_target_name_override", "palyrad-node-rpc"),
            ("grpc.enable_http_proxy", 0),
        ]
        credentials = grpc.ssl_channel_credentials(self.root, key, chain)
        return grpc.aio.secure_channel(address, credentials, options)


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PALYRA_")}
    return {**kept, "PALYRA_HOME": str(home), "COLUMNS": "200"}


@asynccontextmanager
async def program(home: Path, *more: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "serve", "--admin", "127.0.0.1:0", "--nodes", "--enrolment", "127.0.0.1:0",
        "--node", "127.0.0.1:0", *more, env=environment(home), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said: dict[str, str] = {}
    async for line in process.stderr:
        name, _, value = line.decode().strip().partition(":")
        said[name] = value.strip()
        if name == "operator token":
            break
    else:
        raise AssertionError(said)
    root = Path(said["the nodes' root"]).read_bytes()  # noqa: ASYNC240 a small file
    yield Program(home, process, said["nodes that enrol"], said["nodes"], root)
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"stopping\n")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Program]:
    async with program(tmp_path / "home") as running:
        yield running


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Device:
    """The keys of a device, and what it computes."""

    def __init__(self, *, sends_request: bool = True) -> None:
        self.sends_request = sends_request
        self.id = "0" + "".join(secrets.choice(ALPHABET) for _ in range(25))
        self.signing = ed25519.Ed25519PrivateKey.generate()
        self.exchange = x25519.X25519PrivateKey.generate()
        self.tls = ec.generate_private_key(ec.SECP256R1())

    @property
    def named(self) -> bytes:
        return message((1, self.id))

    @property
    def tls_pem(self) -> bytes:
        return pem(self.tls)

    def certificate_request(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "whatever")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def completion(self, session: bytes, gateway: bytes, challenge: bytes, code: str) -> bytes:
        one = (1).to_bytes(4, "little")
        payload = (
            b"palyra-pairing-v1" + one + session + challenge + gateway
            + self.id.encode() + b"node" + code.encode()
        )  # fmt: skip
        shared = self.exchange.exchange(x25519.X25519PublicKey.from_public_bytes(gateway))
        context = b"palyra-mtls-transcript-v1" + session + one + self.id.encode() + b"node"
        self.mac = HKDF(hashes.SHA256(), 32, challenge, context).derive(shared)
        return message(
            (1, 1), (2, session), (3, self.named), (4, "node"), (5, code),
            (6, self.signing.public_key().public_bytes_raw()),
            (7, self.exchange.public_key().public_bytes_raw()),
            (8, self.signing.sign(payload)), (9, self.mac),
            *([(32, self.certificate_request(self.tls))] if self.sends_request else ()),
        )  # fmt: skip

    def poll(self, session: bytes) -> bytes:
        signature = self.signing.sign(b"palyra-pairing-status-v1" + session)
        return message((1, 1), (2, session), (3, self.named), (32, signature))


async def pair(fleet: Program, device: Device, method: str) -> tuple[dict[int, Any], bytes]:
    """Code, beginning, completion and an operator's yes; what the next poll says, and the poll."""
    code, out, _ = await fleet("node", "code", "--method", method)
    proof = out.strip()
    assert (code, len(proof)) == (0, {"pin": 6, "qr": 43}[method])
    async with fleet.channel(fleet.enrolment) as channel:
        begin = message((1, 1), (2, "node"), (3, message(({"pin": 1, "qr": 2}[method], proof))))
        begun = fields(await channel.unary_unary(PACKAGE + "BeginPairingSession")(begin))
        assert (begun[1], begun[3], len(begun[4]), len(begun[5])) == (1, b"node", 32, 32)
        complete = device.completion(begun[2], begun[4], begun[5], proof)
        pending = fields(await channel.unary_unary(PACKAGE + "CompletePairingSession")(complete))
        fingerprint = hashlib.sha256(device.signing.public_key().public_bytes_raw()).hexdigest()
        assert pending.get(2, 0) == 0
        assert pending[3] == b"pending_approval"
        assert pending[4].decode() == fingerprint
        assert pending[5].decode() == hashlib.sha256(device.mac).hexdigest()
        poll = device.poll(begun[2])
        status = channel.unary_unary(PACKAGE + "GetPairingRequestStatus")
        assert fields(await status(poll))[2] == b"pending_approval"
        (request,) = await fleet.json("node", "requests")
        assert request["identity_fingerprint"] == fingerprint
        assert request["transcript_hash"] == pending[5].decode()
        approval = request["approval_id"]
        assert (await fleet("node", "approve", approval, "--reason", "it is mine"))[0] == 0
        code, _, err = await fleet("node", "reject", approval, "--reason", "too late")
        assert (code, "pairing.already_decided" in err) == (1, True)
        paired = fields(await status(poll))
        assert (paired[2], paired[4]) == (b"completed", 1)
        return paired, poll


async def register(fleet: Program, device: Device, key: bytes, chain: bytes) -> bytes:
    """The reason in the answer."""
    async with fleet.channel(fleet.node, key, chain) as channel:
        asked = message((1, 1), (2, device.named), (3, "linux"))
        reason: bytes = fields(await channel.unary_unary(PACKAGE + "RegisterNode")(asked))[4]
        return reason


async def test_a_node_pairs_by_token_rotates_its_certificate_and_revokes_itself(
    fleet: Program,
) -> None:
    device = Device()
    paired, _ = await pair(fleet, device, "qr")
    old = paired[8]
    async with fleet.channel(fleet.node, device.tls_pem, old) as channel:
        newer = ec.generate_private_key(ec.SECP256R1())
        rotate = channel.unary_unary(PACKAGE + "RotateDeviceCertificate")
        request = message((1, 1), (2, device.named), (32, device.certificate_request(newer)))
        rotated = fields(await rotate(request))
        assert (rotated[1], rotated[2], rotated[3]) == (1, 1, b"rotated")
        assert 5 not in rotated, "a private key was sent"
    assert await register(fleet, device, device.tls_pem, old) == b"registered"
    assert await register(fleet, device, pem(newer), rotated[4]) == b"registered"
    async with fleet.channel(fleet.node, pem(newer), rotated[4]) as channel:
        revoke = channel.unary_unary(PACKAGE + "RevokeDevicePairing")
        answer = fields(await revoke(message((1, 1), (2, device.named), (3, "sold"))))
        assert (answer[1], answer[2], answer[3]) == (1, 1, b"revoked")
    for key, chain in ((device.tls_pem, old), (pem(newer), rotated[4])):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await register(fleet, device, key, chain)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await fleet.json("node", "list") == []


async def test_a_client_without_a_request_gets_a_key_once_where_that_is_switched_on(
    tmp_path: Path,
) -> None:
    async with program(tmp_path / "home", "--allow-server-generated-keys") as fleet:
        device = Device(sends_request=False)
        paired, poll = await pair(fleet, device, "pin")
        assert await register(fleet, device, paired[9], paired[8]) == b"registered"
        async with fleet.channel(fleet.enrolment) as channel:
            again = fields(await channel.unary_unary(PACKAGE + "GetPairingRequestStatus")(poll))
        assert (again[2], again[8], 9 in again) == (b"completed", paired[8], False)
        async with fleet.channel(fleet.node, paired[9], paired[8]) as channel:
            rotate = channel.unary_unary(PACKAGE + "RotateDeviceCertificate")
            rotated = fields(await rotate(message((1, 1), (2, device.named))))
        assert await register(fleet, device, rotated[5], rotated[4]) == b"registered"
        secrets_given = [line for key in (paired[9], rotated[5]) for line in key.split()[3:6]]
        kept = [p for p in (tmp_path / "home").rglob("*") if p.is_file()]
        for file in kept:
            content = file.read_bytes()
            assert not any(secret in content for secret in secrets_given), file


async def test_a_node_pairs_registers_streams_answers_and_leaves(fleet: Program) -> None:
    device = Device()
    paired, _ = await pair(fleet, device, "pin")
    assert 9 not in paired, "a private key was sent"
    chain = paired[8]
    async with fleet.channel(fleet.node, device.tls_pem, chain) as channel:
        register = channel.unary_unary(PACKAGE + "RegisterNode")
        echo = message((1, "echo"), (2, 1))
        answer = fields(await register(message((1, 1), (2, device.named), (3, "linux"), (4, echo))))
        assert (answer[3], answer[4]) == (1, b"registered")
        stream = channel.stream_stream(PACKAGE + "StreamNodeEvents")()

        async def event(name: str, payload: bytes = b"") -> dict[int, Any]:
            await stream.write(message((1, 1), (2, device.named), (3, name), (4, payload)))
            said = fields(await stream.read())
            assert (said[3], said[4]) == (1, b"accepted")
            return said

        await event("node.started")
        (known,) = await fleet.json("node", "list")
        assert (known["device_id"], known["connected"]) == (device.id, True)
        async with asyncio.TaskGroup() as tasks:
            invoked = tasks.create_task(
                fleet("node", "invoke", device.id, "echo", "--input", '{"say": "hello"}')
            )
            while 13 not in (said := await event("node.heartbeat")):
                pass
            dispatch = fields(said[13])
            assert (dispatch[2], json.loads(dispatch[3])) == (b"echo", {"say": "hello"})
            result = {"request_id": fields(dispatch[1])[1].decode(), "success": True}
            result["output_json"] = json.loads(dispatch[3])
            await event("capability.result", json.dumps(result).encode())
        assert await invoked == (0, '{"say": "hello"}\n', "")
        assert (await fleet("device", "revoke", device.id, "--reason", "sold"))[0] == 0
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await stream.read()
        assert ended.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await fleet.json("node", "list") == []
    log = (await fleet("node", "asked"))[1]
    assert "succeeded" in log
    assert "hello" not in log


async def test_a_fleet_without_nodes_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "serve", "--admin", "127.0.0.1:0", env=environment(home),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    async for line in process.stderr:
        if line.startswith(b"operator token:"):
            break
    running = Program(home, process, "", "", b"")
    code, _, err = await running("node", "list")
    assert (code, "--nodes" in err) == (1, True)
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0


async def test_a_second_start_finds_its_devices_and_a_damaged_state_stops_it(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with program(home) as fleet:
        root = fleet.root
    async with program(home) as fleet:
        assert fleet.root == root
        await fleet("node", "code")
        code, table, _ = await fleet("ca", "rotate", "--reason", "yearly")
        assert (code, len(table.splitlines())) == (0, 3)
        old, new = await fleet.json("ca", "show")
        assert (old["signs_servers"], new["signs_devices"]) == (True, True)
        code, _, err = await fleet("ca", "rotate", "--reason", "again")
        assert (code, "wait for that" in err, old["authority_id"] in err) == (1, True, True)
    state = home / "fleet" / "node-runtime.v1.json"
    state.write_bytes(state.read_bytes()[:-20])
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "serve", "--admin", "127.0.0.1:0", "--nodes", "--enrolment", "127.0.0.1:0",
        "--node", "127.0.0.1:0", env=environment(home), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 2
    assert f"node-state restore --from {state}.1" in err.decode()
    gone = Program(home, process, "", "", b"")
    code, _, said = await gone("node-state", "restore", "--from", f"{state}.1")
    assert (code, "in place" in said) == (0, True)
    async with program(home):
        pass
