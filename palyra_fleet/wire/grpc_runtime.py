"""`grpc`, loaded so that our clients speak TLS 1.3 only and handshakes stay out of the log.

`grpcio` has no setting for the lowest TLS version. What it has is a list of ciphers for TLS 1.2,
read once, when it is loaded. All certificates of a fleet are ECDSA; with only an RSA cipher in that
list no TLS 1.2 handshake can succeed, and TLS 1.3, whose ciphers are fixed, is not touched. (Our
servers do their own TLS, see `nodes/tls_front.py`.) Everybody imports `grpc` from here (lint holds
it), so that nobody loads it otherwise. The variables are put back afterwards: programs that we
start must not inherit them.
"""

import os

_WHILE_LOADING = {
    "GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES128-GCM-SHA256",
    "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE"),
}
_before = {name: os.environ.get(name) for name in _WHILE_LOADING}
os.environ.update(_WHILE_LOADING)

import grpc  # noqa: E402, TID251
import grpc.aio  # noqa: E402, TID251

for _name, _value in _before.items():
    if _value is None:
        del os.environ[_name]
    else:
        os.environ[_name] = _value

__all__ = ["grpc"]
