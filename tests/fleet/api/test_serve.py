"""Where the fleet listens and the files beside it: private, local, never over somebody else's."""

import asyncio
import os
import socket
import stat
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from palyra_fleet.serve import (
    FleetServer,
    ServeError,
    load_or_create_operator_token,
    open_principals,
    write_admin_url,
)
from tests.fakes.fleet_service import FakeFleetService
from tests.fakes.raw_http import ask, open_connection


def starting(
    socket_path: Path, host: str = "127.0.0.1", port: int = 0
) -> AbstractAsyncContextManager[FleetServer]:
    principals = open_principals(socket_path.parent.parent / "home", "t")
    return FleetServer.start(FakeFleetService(), socket_path, host, port, principals)


async def test_the_socket_is_private_while_served_and_gone_after(tmp_path: Path) -> None:
    path = tmp_path / "run" / "fleet.sock"
    async with starting(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (await ask(path, "GET", "/livez")).status == 200
    assert not path.exists()


def for_operators_too(run: Path) -> AbstractAsyncContextManager[FleetServer]:
    principals = open_principals(run.parent / "home", "t")
    return FleetServer.start(
        FakeFleetService(),
        run / "fleet.sock",
        "127.0.0.1",
        0,
        principals,
        operators_socket=run / "admin.sock",
    )


async def test_the_operators_socket_is_the_admin_listener_and_private(tmp_path: Path) -> None:
    workers, operators = tmp_path / "run" / "fleet.sock", tmp_path / "run" / "admin.sock"
    token = {"Authorization": "Bearer t", "Host": "localhost"}
    async with for_operators_too(tmp_path / "run") as server:
        assert stat.S_IMODE(operators.stat().st_mode) == 0o600
        for where, status in ((operators, 200), (workers, 404), (server.admin_url, 200)):
            assert (await ask(where, "GET", "/v1/workers", headers=token)).status == status
        assert (await ask(operators, "GET", "/v1/workers", headers={"Host": "h"})).status != 200
        with pytest.raises(ServeError, match="another fleet"):
            async with for_operators_too(tmp_path / "run"):
                pass
        assert (await ask(operators, "GET", "/livez")).status == 200
    assert not operators.exists() and not workers.exists()


async def test_where_operators_cannot_be_served_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "admin.sock").write_text("mine")
    with pytest.raises(ServeError, match="not a socket"):
        async with for_operators_too(tmp_path / "run"):
            pass
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["admin.sock"]


@pytest.mark.parametrize("spelt", ["admin.sock", "../run/admin.sock"])
async def test_workers_and_operators_do_not_share_a_socket(tmp_path: Path, spelt: str) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    starts = FleetServer.start(
        FakeFleetService(),
        run / spelt,
        "127.0.0.1",
        0,
        open_principals(tmp_path / "home", "t"),
        operators_socket=run / "admin.sock",
    )
    with pytest.raises(ServeError, match="operators"):
        async with starts:
            pass
    assert not list(run.iterdir())


def test_a_home_that_is_made_is_private_also_where_the_token_was_handed_over(
    tmp_path: Path,
) -> None:
    before = os.umask(0o002)
    try:
        open_principals(tmp_path / "new" / "home", "t" * 43)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "home").stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServeError, match="cannot make the directory: Not a directory"):
        open_principals(tmp_path / "file" / "home", "t" * 43)


async def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run" / "fleet.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with starting(path):
        with pytest.raises(ServeError, match="another fleet"):
            async with starting(path):
                pass
        assert (await ask(path, "GET", "/livez")).status == 200


async def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "fleet.sock"
    path.parent.mkdir(mode=0o700)
    path.write_text("mine")
    with pytest.raises(ServeError, match="not a socket"):
        async with starting(path):
            pass
    assert path.read_text() == "mine"


async def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    with pytest.raises(ServeError, match="others may enter"):
        async with starting(tmp_path / "run" / "fleet.sock"):
            pass


async def test_connections_that_ask_nothing_do_not_keep_the_operator_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palyra_fleet.serve.MAX_ADMIN_CONNECTIONS", 4)
    async with starting(tmp_path / "run" / "fleet.sock") as server:
        held = []
        for head in (b"", b"GET /liv") * 6:
            held.append(await open_connection(server.admin_url))
            held[-1][1].write(head)
            assert (await ask(server.admin_url, "GET", "/livez")).status == 200
        closed = await asyncio.gather(*(reader.read() for reader, _ in held[:8]))
        assert not any(closed)
        for _, writer in held:
            writer.close()


async def test_a_connection_that_does_not_ask_in_time_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palyra_fleet.api.protocol.IDLE_WITHIN_S", 0.05)
    path = tmp_path / "run" / "fleet.sock"
    async with starting(path):
        for head in (b"", b"GET /livez HTTP/1.1\r\nHost: lo"):
            reader, writer = await open_connection(path)
            writer.write(head)
            async with asyncio.timeout(60):
                assert await reader.read() == b""
            writer.close()


async def test_a_path_too_long_for_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="at most"):
        async with starting(tmp_path / ("x" * 120) / "fleet.sock"):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "169.254.169.254", "example.org"])
async def test_the_admin_listener_is_local_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(ServeError, match="loopback"):
        async with starting(tmp_path / "run" / "fleet.sock", host):
            pass


async def test_a_taken_port_is_refused_in_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServeError, match="cannot listen"):
            async with starting(tmp_path / "run" / "s", "127.0.0.1", taken.getsockname()[1]):
                pass


async def test_the_admin_url_names_the_port_that_was_taken(tmp_path: Path) -> None:
    async with starting(tmp_path / "run" / "s", "localhost") as server:
        assert server.admin_url.startswith("http://127.0.0.1:")
        assert (await ask(server.admin_url, "GET", "/livez")).status == 200


def test_a_token_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "operator.token"
    token = load_or_create_operator_token(path)
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_operator_token(path) == token
    assert load_or_create_operator_token(tmp_path / "other.token") != token


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [("x" * 43, 0o644, "too open"), ("", 0o600, "no token"), ("short", 0o600, "no token")],
)
def test_a_token_file_that_is_not_safe_is_refused(
    tmp_path: Path, content: str, mode: int, word: str
) -> None:
    path = tmp_path / "operator.token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ServeError, match=word):
        load_or_create_operator_token(path)


def test_the_admin_url_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "home" / "admin.url"
    write_admin_url(path, "http://127.0.0.1:1")
    write_admin_url(path, "http://127.0.0.1:22222")
    assert path.read_text() == "http://127.0.0.1:22222\n"
    assert [file.name for file in path.parent.iterdir()] == ["admin.url"]


def test_a_token_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_or_create_operator_token(tmp_path / "operator.token")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ServeError, match="another user"):
        load_or_create_operator_token(tmp_path / "operator.token")
