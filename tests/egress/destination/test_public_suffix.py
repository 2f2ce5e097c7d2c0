"""Mirror of destination/public_suffix.py."""

import subprocess
import sys

import pytest
from publicsuffixlist import PublicSuffixList

from palyra_egress.destination.public_suffix import (
    ADDITIONS,
    is_registry_suffix,
    is_shared_suffix,
)

NAMES = [
    # name, a registry's, anybody's
    ("com", True, True),
    ("co.uk", True, True),
    ("example", True, True),  # a last label that no registry knows
    ("xn--55qx5d.cn", True, True),
    ("www.ck", False, False),  # an exception in the list
    ("anything.ck", True, True),
    ("example.com", False, False),
    ("github.io", False, True),
    ("me.github.io", False, False),
    ("herokuapp.com", False, True),
    ("amazonaws.com", False, True),  # not in the list, and much below it is
    ("s3.amazonaws.com", False, True),
    ("googleapis.com", False, True),
    ("nip.io", False, True),
]


@pytest.mark.parametrize(("name", "registry", "shared"), NAMES)
def test_a_suffix_is_known(name: str, registry: bool, shared: bool) -> None:
    assert is_registry_suffix(name) is registry
    assert is_shared_suffix(name) is shared


def test_the_additions_are_not_in_the_list() -> None:
    """One that the list learns is taken out here."""
    known = PublicSuffixList()
    assert [name for name in sorted(ADDITIONS) if known.is_public(name)] == []


def test_the_list_is_read_when_it_is_asked_and_without_a_network() -> None:
    program = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('a socket')\n"
        "socket.socket = socket.getaddrinfo = refuse\n"
        "from palyra_egress.destination import public_suffix as p\n"
        "import palyra_egress.service\n"
        "assert p._lists.cache_info().currsize == 0\n"
        "assert p.is_shared_suffix('github.io')\n"
        "assert p._lists.cache_info().currsize == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
