"""What the service manager is told, over a real notify socket."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from palyra_fleet.private_files import OPERATOR_TOKEN, credential, read_private
from palyra_fleet.supervised import notify, serving_notice, watchdog_s
from palyra_fleet.wire.keys import KeyFileError
from tests.fleet.cli.conftest import PROGRAM, Shell, shell

__all__ = ["shell"]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


async def told(manager: socket.socket) -> str:
    return (await asyncio.to_thread(manager.recv, 4096)).decode()


def test_without_a_manager_nothing_is_said() -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "vsock:2:1234"})


def test_a_manager_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})


def test_a_socket_without_a_name_in_the_file_system_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0palyra-test-{os.getpid()}")
        assert notify("READY=1", {"NOTIFY_SOCKET": f"@palyra-test-{os.getpid()}"})
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("given", "within_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),  # another process is watched
    ],
)
def test_the_watchdog_is_fed_only_where_this_process_is_watched(
    given: dict[str, str], within_s: float | None
) -> None:
    assert watchdog_s(given, pid=7) == within_s


async def test_a_block_that_serves_is_ready_alive_and_then_ending(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with serving_notice():
        assert await told(manager) == "READY=1"
        assert await told(manager) == "WATCHDOG=1"
        assert await told(manager) == "WATCHDOG=1"
    while (said := await told(manager)) == "WATCHDOG=1":
        pass
    assert said == "STOPPING=1"


@pytest.mark.e2e
async def test_the_fleet_says_when_it_serves_and_when_it_ends(
    shell: Shell, manager: socket.socket
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "serve", "--admin", "127.0.0.1:0"),
        env={**shell.environment, "NOTIFY_SOCKET": manager.getsockname()},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert await told(manager) == "READY=1"
        assert (await shell("worker", "list")).code == 0  # ready means that it answers
        process.send_signal(signal.SIGTERM)
        assert await told(manager) == "STOPPING=1"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


def handed_over(directory: Path, mode: int) -> Path:
    """A credential as systemd leaves it: of root, with an access list that shows as the group."""
    file = directory / OPERATOR_TOKEN
    file.write_text("t" * 43)
    file.chmod(mode)
    return file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of root's")
@pytest.mark.parametrize(
    ("mode", "good"),
    [(0o400, True), (0o440, True), (0o444, False), (0o460, False), (0o600, True), (0o640, False)],
)
def test_what_the_manager_handed_over_is_read_unless_others_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, good: bool
) -> None:
    file = handed_over(tmp_path, mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credential(OPERATOR_TOKEN) == file
    if good:
        assert read_private(file, 100) == b"t" * 43
        return
    with pytest.raises(KeyFileError, match="too open"):
        read_private(file, 100)


def test_a_file_elsewhere_is_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = handed_over(tmp_path, 0o440)
    (tmp_path / "credentials").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert credential(OPERATOR_TOKEN) is None
    with pytest.raises(KeyFileError, match="too open"):
        read_private(file, 100)


@pytest.mark.e2e
async def test_the_fleet_takes_the_operator_token_that_it_was_handed(
    shell: Shell, tmp_path: Path
) -> None:
    handed_over(tmp_path, 0o400)
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "serve", "--admin", "127.0.0.1:0"),
        env={**shell.environment, "CREDENTIALS_DIRECTORY": str(tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        while b"operator token" not in await process.stderr.readline():
            pass
        token = tmp_path / "copy"
        token.write_text("t" * 43)
        said = await shell("principal", "self", "--token-file", str(token))
        assert said.code == 0, said.err
        assert not (shell.home / "operator.token").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
