from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class CanonicalId(_message.Message):
    __slots__ = ("ulid",)
    ULID_FIELD_NUMBER: _ClassVar[int]
    ulid: str
    def __init__(self, ulid: _Optional[str] = ...) -> None: ...

class ReplayProtection(_message.Message):
    __slots__ = ("nonce", "timestamp_unix_ms", "signature")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    nonce: str
    timestamp_unix_ms: int
    signature: str
    def __init__(self, nonce: _Optional[str] = ..., timestamp_unix_ms: _Optional[int] = ..., signature: _Optional[str] = ...) -> None: ...
