"""Mirror of destination/resolver.py: what a resolver can do to us, and the reason it is given.

The operating system's resolver is replaced at `socket.getaddrinfo`, so that no name leaves.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palyra_egress.destination.resolver import (
    MAX_ADDRESSES,
    HostsFileError,
    LookupLimits,
    ResolutionRefused,
    StaticResolver,
    SystemResolver,
    read_hosts_file,
)
from palyra_egress.reasons import REASONS, Reason, ReasonClass
from palyra_egress.request import CanonicalHost

NAME = CanonicalHost("a.example")


@contextmanager
def system_that(answer: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The system's resolver answers with these addresses, or fails; yields the names asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        found = answer() if callable(answer) else answer
        if isinstance(found, Exception):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in found]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield asked


TOO_MANY = [f"203.0.114.{number}" for number in range(MAX_ADDRESSES + 1)]
FAULTS = {
    "no such name": (socket.gaierror(socket.EAI_NONAME, "no"), Reason.RESOLUTION_FAILED, 502),
    "try again": (socket.gaierror(socket.EAI_AGAIN, "no"), Reason.RESOLUTION_FAILED, 502),
    "no file handles": (OSError(24, "no"), Reason.RESOLUTION_FAILED, 502),
    "a name it cannot encode": (UnicodeError("no"), Reason.RESOLUTION_FAILED, 502),
    "no address": ([], Reason.RESOLUTION_EMPTY, 502),
    "too many": (
        [f"203.0.114.{n}" for n in range(MAX_ADDRESSES + 1)],
        Reason.RESOLUTION_FAILED,
        502,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_resolver_is_nobodys_violation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, reason, status = FAULTS[name]
    resolver = SystemResolver()
    with system_that(answer, monkeypatch), pytest.raises(ResolutionRefused) as refused:
        await resolver.resolve(NAME, 443)
    resolver.close()
    assert refused.value.reason is reason
    assert (REASONS[reason].http_status, REASONS[reason].reason_class) == (
        status,
        ReasonClass.INFRA,
    )


async def test_a_resolver_that_never_answers_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def never() -> list[str]:
        answered.wait()
        return ["203.0.114.1"]

    resolver = SystemResolver(LookupLimits(deadline_s=0.05))
    with system_that(never, monkeypatch), pytest.raises(ResolutionRefused) as refused:
        await resolver.resolve(NAME, 443)
    answered.set()
    resolver.close()
    assert refused.value.reason is Reason.RESOLUTION_TIMEOUT
    assert REASONS[Reason.RESOLUTION_TIMEOUT].http_status == 504


async def test_every_address_is_told_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = SystemResolver()
    with system_that(["203.0.114.2", "203.0.114.1", "203.0.114.2"], monkeypatch) as asked:
        assert await resolver.resolve(NAME, 443) == ("203.0.114.2", "203.0.114.1")
    assert asked == ["a.example"]
    resolver.close()


@pytest.mark.parametrize("literal", ["203.0.114.1", "2001:4860::1"])
async def test_an_address_is_never_asked_for(literal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = SystemResolver()
    with system_that(["10.0.0.1"], monkeypatch) as asked:
        assert await resolver.resolve(CanonicalHost(literal), 443) == (literal,)
    assert asked == []
    resolver.close()


async def test_a_hosts_file_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hosts"
    file.write_text("203.0.114.7 A.example. b.example # both\n\n203.0.114.8 a.example\n")
    resolver = StaticResolver(read_hosts_file(file), SystemResolver())
    with system_that(["203.0.114.1"], monkeypatch) as asked:
        assert await resolver.resolve(NAME, 443) == ("203.0.114.7", "203.0.114.8")
        assert await resolver.resolve(CanonicalHost("c.example"), 443) == ("203.0.114.1",)
    assert asked == ["c.example"]
    resolver.close()


@pytest.mark.parametrize(
    "line", ["203.0.114.300 a.example", "a.example 203.0.114.1", "203.0.114.1"]
)
def test_a_bad_line_of_a_hosts_file_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "hosts"
    file.write_text(f"# first\n{line}\n")
    with pytest.raises(HostsFileError, match=rf"^{file}:2:1: .*expected ADDRESS NAME"):
        read_hosts_file(file)


def test_a_hosts_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_bytes(b"203.0.114.1 a.example\n\xff\n")
    with pytest.raises(HostsFileError, match=rf"^{file}: is not UTF-8; expected lines of ADDRESS"):
        read_hosts_file(file)


def test_a_hosts_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("203.0.114.1 a.example\n")
    file.chmod(0o666)
    with pytest.raises(HostsFileError, match=rf"^{file}: mode 666 lets others write to it"):
        read_hosts_file(file)


async def test_slow_names_of_one_worker_make_no_other_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads hang long after it has given up; the others have theirs."""
    answered = threading.Event()
    resolver = SystemResolver(LookupLimits(deadline_s=0.2, at_once=4, per_asker=2))

    def by_name(host: str, *_: object, **__: object) -> list[object]:
        if host.startswith("slow"):
            answered.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.114.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", by_name)
    slow = [CanonicalHost(f"slow{n}.example") for n in range(6)]
    given_up = await asyncio.gather(
        *(resolver.resolve(host, 443, "greedy") for host in slow), return_exceptions=True
    )
    assert {type(one) for one in given_up} == {ResolutionRefused}
    assert await resolver.resolve(NAME, 443, "honest") == ("203.0.114.1",)
    with pytest.raises(ResolutionRefused) as still:
        await resolver.resolve(CanonicalHost("quick.example"), 443, "greedy")
    assert still.value.reason is Reason.RESOLUTION_TIMEOUT
    answered.set()
    assert await resolver.resolve(NAME, 443, "greedy") == ("203.0.114.1",)
    resolver.close()


async def test_more_look_ups_than_may_wait_are_too_many_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def never() -> list[str]:
        answered.wait()
        return ["203.0.114.1"]

    limits = LookupLimits(deadline_s=0.2, at_once=1, per_asker=1, waiting_per_asker=1)
    resolver = SystemResolver(limits)
    with system_that(never, monkeypatch):
        found = await asyncio.gather(
            *(resolver.resolve(NAME, 443, "greedy") for _ in range(3)), return_exceptions=True
        )
    answered.set()
    resolver.close()
    reasons = [one.reason for one in found if isinstance(one, ResolutionRefused)]
    assert sorted(reasons) == [
        Reason.RATE_LIMITED,
        Reason.RESOLUTION_TIMEOUT,
        Reason.RESOLUTION_TIMEOUT,
    ]
