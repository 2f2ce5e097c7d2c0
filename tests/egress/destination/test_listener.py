"""Mirror of destination/listener.py: an address and a port, or what was expected."""

import pytest

from palyra_egress.destination.listener import listener_of
from palyra_egress.service import canonical_listeners


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("127.0.0.1:7741", ("127.0.0.1", 7741)),
        ("[::1]:65535", ("::1", 65_535)),
        ("::1:80", ("::1", 80)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
    ],
)
def test_an_address_and_a_port_are_read_and_can_be_forbidden(
    text: str, read: tuple[str, int]
) -> None:
    assert listener_of(text) == read
    assert canonical_listeners([read])


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":80", "here:80", "localhost:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x"),
        *("127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:\u0663", "127.0.0.1:" + "9" * 5_000),
        *("127.1:80", "1.2.3.4/8:80", "[::1:]:80", "::1"),
    ],
)
def test_what_is_none_is_refused_and_told_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected IP:PORT, an address and a port from 1 to"):
        listener_of(text)
