"""Addresses under which clouds serve credentials to whoever asks from inside. Seen 2026-11."""

from typing import Final

METADATA_URLS: Final = (
    "http://169.254.169.254/latest/meta-data/",  # most clouds
    "http://[fd00:ec2::254]/latest/meta-data/",  # the same, over IPv6
    "http://169.254.170.2/v2/credentials",  # containers' credentials
    "http://100.100.100.200/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
)
