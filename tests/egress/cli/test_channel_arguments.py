"""The flags of channels: what is taken, and what is told about half of one."""

from pathlib import Path

import pytest

from palyra_egress.cli.channel_arguments import channels_of
from palyra_egress.cli.parser import make_parser
from palyra_egress.proxy.channels.settings import NO_CHANNELS
from palyra_fleet.cli.trouble import Trouble

WORKER, OTHER = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01BX5ZZKBKACTAV9WEVGEMMVRZ"


def parsed(*flags: str):
    return channels_of(make_parser().parse_args(["up", *flags]))


def test_without_flags_there_are_no_channels() -> None:
    assert parsed() == NO_CHANNELS


def test_every_channel_at_once() -> None:
    found = parsed(
        *("--worker-tls", "[::1]:8443", "--worker-roots", "fleet.pem"),
        *("--worker-trust-domain", "corp.example", "--worker-tls-name", "proxy.corp.example"),
        *("--peer-socket", "/run/p.sock", "--peer", f"1001={WORKER}", "--peer", f"1002={OTHER}"),
        *("--lease-sockets", "/run/leases", "--lease-socket-mode", "0660"),
        *("--worker-listen", f"{WORKER}=10.0.0.1:8080"),
        *("--worker-redirect", f"{OTHER}=[fd00::1]:8443"),
    )
    tls, peers, leases = found.worker_tls, found.peer_socket, found.lease_listeners
    assert tls is not None and peers is not None and leases is not None
    assert (tls.host, tls.port, tls.roots) == ("::1", 8443, Path("fleet.pem"))
    assert (tls.trust_domain, tls.names) == ("corp.example", ("proxy.corp.example",))
    assert peers.workers == {1001: WORKER, 1002: OTHER}
    assert (leases.directory, leases.mode) == (Path("/run/leases"), 0o660)
    assert leases.addresses == {WORKER: ("10.0.0.1", 8080)}
    assert leases.redirected == {OTHER: ("fd00::1", 8443)}


HALVES = {
    "roots are missing": (["--worker-tls", "127.0.0.1:1"], "--worker-tls needs --worker-roots"),
    "a listener is missing": (["--worker-roots", "x"], "--worker-roots needs --worker-tls"),
    "accounts are missing": (["--peer-socket", "x"], "--peer-socket needs --peer"),
    "a socket is missing": (["--peer", f"1={WORKER}"], "--peer needs --peer-socket"),
    "one account is two workers": (
        ["--peer-socket", "x", "--peer", f"1={WORKER}", "--peer", f"1={OTHER}"],
        "names the same one twice",
    ),
    "two accounts are one worker": (
        ["--peer-socket", "x", "--peer", f"1={WORKER}", "--peer", f"2={WORKER}"],
        "names the same one twice",
    ),
    "two workers have one address": (
        ["--worker-listen", f"{WORKER}=h:1", "--worker-listen", f"{OTHER}=h:1"],
        "names the same one twice",
    ),
}


@pytest.mark.parametrize("case", HALVES)
def test_half_a_channel_is_told(case: str) -> None:
    flags, text = HALVES[case]
    with pytest.raises(Trouble) as told:
        parsed(*flags)
    assert text in str(told.value)


MALFORMED = {
    "an account by name": ["--peer", f"alice={WORKER}"],
    "an account below zero": ["--peer", f"-1={WORKER}"],
    "digits that are not ASCII": ["--peer", f"\u0661={WORKER}"],
    "no worker": ["--peer", "1001="],
    "a worker that is no id": ["--peer", "1001=worker"],
    "a worker in lower case": ["--peer", f"1001={WORKER.lower()}"],
    "an address without a port": ["--worker-listen", f"{WORKER}=10.0.0.1"],
    "an address with port 0": ["--worker-listen", f"{WORKER}=10.0.0.1:0"],
    "a port that is none": ["--worker-tls", "h:65536"],
    "a mode for everybody's execution": ["--lease-socket-mode", "0777"],
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_flag_is_told_and_nothing_starts(case: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*MALFORMED[case])
    assert ended.value.code == 2
    assert MALFORMED[case][0] in capsys.readouterr().err
