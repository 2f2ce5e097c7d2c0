"""Syslog: RFC 5424 messages over TLS and to daemons here, each as a collector reads it."""

import json
import re
import socket
from pathlib import Path

import pytest

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.exports.receiver import Undelivered
from palyra_fleet.exports.syslog import DatagramSyslog, TlsSyslog, message_of
from palyra_fleet.exports.trust import client_context
from palyra_fleet.signals.export_counts import ExportProblem
from tests.fakes.siem import Collector, collector, entries
from tests.fakes.until import until

RFC_5424 = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (?P<host>[!-~]{1,255})"
    r" (?P<app>[!-~]{1,48}) (?P<pid>[!-~]{1,128}) (?P<id>[!-~]{1,32}) - (?P<text>[ -~]+)"
)


def read(message: str) -> re.Match[str]:
    found = RFC_5424.fullmatch(message)
    assert found is not None, message
    return found


def sequences(collector: Collector) -> list[int]:
    return [json.loads(read(one)["text"])["event.sequence"] for one in collector.messages]


def test_a_message_has_the_form_of_the_standard_whatever_stands_in_the_event() -> None:
    (plain, _, alarm) = entries(3, why="line\n<0>1 - forged \u2028 \x00 " + "x" * 5_000)
    found = read(message_of(plain, "fleet.example", 7).decode())
    assert (found["pri"], found["app"], found["pid"]) == ("110", "palyra-fleet", "7")
    assert (found["host"], found["id"]) == ("fleet.example", "worker.registered")
    assert found["time"] == "2026-11-18T11:06:40.000Z"
    assert read(message_of(alarm, "host with spaces\n", 7).decode())["pri"] == "108"
    assert read(message_of(alarm, "\u00e9", 7).decode())["host"] == "-"
    assert len(message_of(plain, "h" * 999, 7)) < 8_192


async def test_messages_arrive_counted_over_tls_that_is_verified(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with collector(ca.server_context("localhost")) as made:
        syslog = TlsSyslog("localhost", made.port, client_context(ca.ca_file))
        await syslog.deliver(entries(3))
        await syslog.deliver(entries(2))
        await until("all five are read", lambda: len(made.messages) == 5)
        assert (sequences(made), made.connections) == ([1, 2, 3, 1, 2], 1)
        await syslog.close()
        stranger = TlsSyslog("localhost", made.port, client_context(None))
        with pytest.raises(Undelivered, match=ExportProblem.UNTRUSTED):
            await stranger.deliver(entries(1))
        impostor = TlsSyslog("127.0.0.1", made.port, client_context(ca.ca_file))
        with pytest.raises(Undelivered, match=ExportProblem.UNTRUSTED):
            await impostor.deliver(entries(1))
        assert len(made.messages) == 5


async def test_a_collector_that_went_away_is_asked_anew(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with collector(ca.server_context("localhost")) as made:
        syslog = TlsSyslog("localhost", made.port, client_context(ca.ca_file))
        await syslog.deliver(entries(1))
        made.writers[0].transport.abort()
        for _ in range(2):  # the first may find out only by sending
            try:
                await syslog.deliver(entries(1))
                break
            except Undelivered as error:
                assert error.problem is ExportProblem.UNREACHABLE
        assert made.connections == 2
        await syslog.close()


async def test_a_collector_that_stands_still_is_given_up(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with collector(ca.server_context("localhost")) as made:
        made.reads.clear()
        syslog = TlsSyslog("localhost", made.port, client_context(ca.ca_file), within_s=0.5)
        log = entries(100, why="x" * 1_000)
        with pytest.raises(Undelivered, match=ExportProblem.LATE):
            for _ in range(200):  # more than all buffers in between hold
                await syslog.deliver(log)
        await syslog.close()


async def test_nobody_there_is_told(tmp_path: Path) -> None:
    nobody = (
        TlsSyslog("127.0.0.1", 9, client_context(None)),
        DatagramSyslog(str(tmp_path / "none")),
        DatagramSyslog(("127.0.0.1", 9)),
    )
    for syslog in nobody:
        with pytest.raises(Undelivered, match=ExportProblem.UNREACHABLE):
            await syslog.deliver(entries(2))
        await syslog.close()


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
async def test_a_daemon_here_gets_a_datagram_each(
    family: socket.AddressFamily, tmp_path: Path
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as daemon:
        path = str(tmp_path / "log")
        daemon.bind(path if family is socket.AF_UNIX else ("127.0.0.1", 0))
        daemon.settimeout(60)
        address = path if family is socket.AF_UNIX else daemon.getsockname()
        syslog = DatagramSyslog(address)
        await syslog.deliver(entries(3))
        got = [daemon.recv(65_536).decode("ascii") for _ in range(3)]
        await syslog.close()
    assert [json.loads(read(one)["text"])["event.sequence"] for one in got] == [1, 2, 3]


async def test_a_daemon_here_that_stands_still_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        syslog = DatagramSyslog(str(tmp_path / "log"), within_s=0.3)
        with pytest.raises(Undelivered, match=ExportProblem.LATE):
            for _ in range(50):
                await syslog.deliver(entries(100))
        await syslog.close()
