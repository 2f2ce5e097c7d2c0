"""The TLS side of receivers: 1.2 or newer, names and chains always verified, and no key log."""

import ssl
from pathlib import Path

import certifi


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the CAs of `ca_file`, or the public ones. Raises OSError or ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=str(ca_file or certifi.where()))
    return context
