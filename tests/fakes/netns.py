"""A network namespace of the test's own, in which netfilter may be told what to do.

The thread that runs the test moves into a new namespace with nothing but loopback, over which every
address is routed, so that whatever the program under test connects to stays on this machine; it
moves back at the end. Needs root, `ip` and `nft`; a test that cannot have them skips itself.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SET_UP = (
    "link set lo up",
    "address add 192.0.2.1/32 dev lo",
    "route add default dev lo src 192.0.2.1",
    "-6 address add 2001:db8::1/128 dev lo nodad",
    "-6 route add default dev lo",
)


@contextmanager
def own_network() -> Iterator[None]:
    """Everything that happens inside happens in the new namespace."""
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed, so nothing can be redirected here")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        try:
            os.unshare(os.CLONE_NEWNET)
        except PermissionError:
            pytest.skip("a network namespace of the test's own needs root")
        try:
            for line in SET_UP:
                _run("ip", *line.split())
            yield
        finally:
            os.setns(before, os.CLONE_NEWNET)
    finally:
        os.close(before)


def redirect(port: int) -> None:
    """Lead TCP to the usual ports of any other machine to this port of ours."""
    rules = f"""
    table inet to_proxy {{
      chain output {{
        type nat hook output priority -100; policy accept;
        ip daddr != 127.0.0.0/8 tcp dport {{ 80, 443, 22 }} redirect to :{port}
        ip6 daddr != ::1 tcp dport {{ 80, 443, 22 }} redirect to :{port}
      }}
    }}
    """
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True, timeout=60)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60)
