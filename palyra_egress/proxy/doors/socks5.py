"""The messages of SOCKS5, read strictly and answered. Pure.

Only user name and password (the lease's id and its egress secret) and only CONNECT are spoken; for
everything else there is the refusal that its sender understands. A `read_*` function takes what has
come and gives the message with the number of bytes it took, None while it is incomplete, or raises
`SocksRefused`. Every length is one byte, so no message is longer than 513 bytes.
Sources: RFC 1928 (SOCKS5), RFC 1929 (user name and password); the answer to SOCKS4 as its protocol
note gives it.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from palyra_egress.destination.address_class import format_address
from palyra_egress.destination.hostname import HostRefused, canonical_host, parse_authority
from palyra_egress.proxy.identity import ProxyCredentials, lease_credentials
from palyra_egress.reasons import Reason, ReasonClass, row
from palyra_egress.request import CanonicalHost

VERSION: Final = 5
CREDENTIALS_VERSION: Final = 1
USER_AND_PASSWORD: Final = 2
MAX_MESSAGE_BYTES: Final = 513

METHOD_CHOSEN: Final = bytes([VERSION, USER_AND_PASSWORD])
NO_METHOD: Final = bytes([VERSION, 0xFF])
CREDENTIALS_GOOD: Final = bytes([CREDENTIALS_VERSION, 0])
CREDENTIALS_REFUSED: Final = bytes([CREDENTIALS_VERSION, 1])
SOCKS4_REFUSED: Final = bytes([0, 91]) + bytes(6)

_SOCKS4: Final = 4
_CONNECT: Final = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_BIND_AND_UDP: Final = (2, 3)


class Reply(IntEnum):
    """RFC 1928 section 6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    HOST_UNREACHABLE = 4
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8

    @property
    def message(self) -> bytes:
        """The whole reply. Nothing is bound yet, and what will be is nobody's business."""
        return bytes([VERSION, self, 0, _IPV4]) + bytes(6)


class SocksRefused(Exception):
    """What was sent is not carried: the reason, and the last thing the client is told."""

    def __init__(self, reason: Reason, answer: bytes = b"") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.answer = answer


@dataclass(frozen=True, slots=True)
class SocksTarget:
    """Where a CONNECT goes: a canonical host and a port from 1 on."""

    host: CanonicalHost
    port: int


def read_greeting(data: bytes) -> int | None:
    """How many bytes a greeting took that offers user name and password."""
    if not data:
        return None
    if data[0] != VERSION:
        answer = SOCKS4_REFUSED if data[0] == _SOCKS4 else b""
        raise SocksRefused(Reason.PROTOCOL_NOT_SUPPORTED, answer)
    size = 2 + data[1] if len(data) > 1 else 2
    if len(data) < size:
        return None
    if USER_AND_PASSWORD not in data[2:size]:
        raise SocksRefused(Reason.NO_IDENTITY, NO_METHOD)
    return size


def read_credentials(data: bytes) -> tuple[ProxyCredentials | None, int] | None:
    """The lease's credentials, None in their place where they cannot be any."""
    if not data:
        return None
    if data[0] != CREDENTIALS_VERSION:
        raise SocksRefused(Reason.REQUEST_MALFORMED, CREDENTIALS_REFUSED)
    if len(data) < 2 or len(data) < 3 + data[1]:
        return None
    user_end = 2 + data[1]
    size = user_end + 1 + data[user_end]
    if len(data) < size:
        return None
    try:
        user, secret = data[2:user_end].decode("ascii"), data[user_end + 1 : size].decode("ascii")
    except UnicodeDecodeError:
        return None, size
    return lease_credentials(f"{user}:{secret}"), size


def read_request(data: bytes) -> tuple[SocksTarget, int] | None:
    """The target of a CONNECT."""
    if len(data) < 4:
        return None
    if data[0] != VERSION or data[2] != 0:
        raise _refused(Reason.REQUEST_MALFORMED)
    if data[1] != _CONNECT:
        is_known = data[1] in _BIND_AND_UDP
        reason = Reason.PROTOCOL_NOT_SUPPORTED if is_known else Reason.REQUEST_MALFORMED
        raise SocksRefused(reason, Reply.COMMAND_NOT_SUPPORTED.message)
    if data[3] not in (_IPV4, _NAME, _IPV6):
        answer = Reply.ADDRESS_TYPE_NOT_SUPPORTED.message
        raise SocksRefused(Reason.REQUEST_MALFORMED, answer)
    begin, length = 4, {_IPV4: 4, _IPV6: 16}.get(data[3], 0)
    if data[3] == _NAME:
        if len(data) < 5:
            return None
        begin, length = 5, data[4]
    end = begin + length
    if len(data) < end + 2:
        return None
    port = int.from_bytes(data[end : end + 2])
    if port == 0:
        raise _refused(Reason.PORT_MISSING)
    return SocksTarget(_host(data[3], data[begin:end]), port), end + 2


def _host(kind: int, raw: bytes) -> CanonicalHost:
    if kind != _NAME:
        return CanonicalHost(format_address(4 if kind == _IPV4 else 6, int.from_bytes(raw)))
    try:
        text = raw.decode("ascii")  # an A-label is ASCII; nobody agrees on what else would mean
        if text.startswith("[") and text.endswith("]"):
            return parse_authority(text, 1)[0]
        return canonical_host(text)
    except UnicodeDecodeError as error:
        raise _refused(Reason.HOST_MALFORMED) from error
    except HostRefused as refused:
        raise _refused(refused.reason) from refused


def _refused(reason: Reason) -> SocksRefused:
    return SocksRefused(reason, reply_to(reason).message)


_UNREACHABLE: Final = (Reason.RESOLUTION_FAILED, Reason.RESOLUTION_EMPTY)


def reply_to(reason: Reason) -> Reply:
    """What a client is told of a reason. SOCKS has few words."""
    if reason in _UNREACHABLE:
        return Reply.HOST_UNREACHABLE
    match row(reason).reason_class:
        case ReasonClass.ALLOWED:
            return Reply.SUCCEEDED
        case ReasonClass.POLICY | ReasonClass.THREAT:
            return Reply.NOT_ALLOWED
        case ReasonClass.INFRA | ReasonClass.CLIENT:
            return Reply.GENERAL_FAILURE
