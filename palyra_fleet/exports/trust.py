"""The TLS side of receivers: 1.2 or newer, names and chains always verified, and no key log."""

import ssl
from pathlib import Path
from typing import Final

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from palyra_fleet.trusted_files import read_trusted

MAX_CA_BYTES: Final = 1024 * 1024


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the CAs of `ca_file`, which only we may change, or the public ones. Raises
    UntrustedFile, OSError, ValueError or ssl.SSLError."""
    if ca_file is not None:
        content, _ = read_trusted(ca_file, MAX_CA_BYTES)
        return context_of(content)
    context = _context()
    context.load_verify_locations(cafile=certifi.where())
    return context


def context_of(pem: bytes) -> ssl.SSLContext:
    """Trusts the CAs in the content of a file. Raises ValueError or ssl.SSLError."""
    context = _context()
    roots = x509.load_pem_x509_certificates(pem)
    context.load_verify_locations(cadata=b"".join(one.public_bytes(Encoding.DER) for one in roots))
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
