"""gRPC channels to the fleet: TLS 1.3, the trust root we were given and no other.

The server's certificate must carry the name `palyrad-node-rpc`, whatever the address; a node that
trusts exactly one root needs no name service to know whom it speaks to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from palyra_fleet.node_agent.material import Certificate
from palyra_fleet.wire.grpc_runtime import grpc

SERVER_NAME: Final = "palyrad-node-rpc"
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.enable_http_proxy", 0),
    # a channel that could not connect is closed by us and made anew, at our own pace
    ("grpc.enable_retries", 0),
)


@asynccontextmanager
async def open_channel(
    address: str, roots_pem: str, certificate: Certificate | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to `host:port`, with a client certificate or none. It connects when it is used."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=roots_pem.encode(),
        private_key=None if certificate is None else certificate.private_key_pem.encode(),
        certificate_chain=None if certificate is None else certificate.certificate_pem.encode(),
    )
    async with grpc.aio.secure_channel(address, credentials, options=_OPTIONS) as channel:
        yield channel
