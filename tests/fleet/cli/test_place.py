"""Where the token goes: to a socket that no other account can listen at, unless told otherwise."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from palyra_fleet.cli.place import HOME_VARIABLE, URL_VARIABLE, find_fleet
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.serve import write_admin_url
from tests.fakes.until import until
from tests.fleet.cli.conftest import Shell, running

SOMEBODY = 12_345
"""An account that is not ours."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """As `serve` leaves it."""
    (tmp_path / "operator.token").write_text("token")
    (tmp_path / "run").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "run" / "admin.sock"))
        yield tmp_path


def found(home: Path, url: str | None = None, **more: str) -> Path | str:
    return find_fleet(url, None, {HOME_VARIABLE: str(home), **more})[0]


def test_it_goes_to_the_socket_in_the_home(home: Path) -> None:
    assert found(home) == home / "run" / "admin.sock"


def test_it_goes_where_the_operator_says(home: Path) -> None:
    assert found(home, "http://127.0.0.1:1") == "http://127.0.0.1:1"
    assert found(home, **{URL_VARIABLE: "http://127.0.0.1:2"}) == "http://127.0.0.1:2"


def test_a_port_that_a_file_names_gets_nothing(home: Path) -> None:
    write_admin_url(home / "admin.url", "http://127.0.0.1:8931")
    (home / "run" / "admin.sock").unlink()
    with pytest.raises(Trouble, match="not served here"):
        found(home)


def test_an_empty_variable_says_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(home, **{URL_VARIABLE: ""}) == home / "run" / "admin.sock"
    (home / "var").symlink_to(home)
    monkeypatch.chdir(home)
    assert find_fleet(None, None, {HOME_VARIABLE: ""})[0] == Path("var/run/admin.sock")


def test_a_fleet_that_has_ended_is_away_and_one_that_never_was_is_not(home: Path) -> None:
    (home / "run" / "admin.sock").unlink()
    for folder, code in ((home, ExitCode.UNREACHABLE), (home / "nowhere", ExitCode.YOURS)):
        with pytest.raises(Trouble, match="not served here") as told:
            found(folder)
        assert told.value.exit_code is code


def test_who_waits_for_a_fleet_that_has_ended_is_told_where_it_will_be(home: Path) -> None:
    file = home / "run" / "admin.sock"
    file.unlink()
    assert find_fleet(None, None, {HOME_VARIABLE: str(home)}, may_be_away=True)[0] == file
    for folder, mode in ((home / "run", 0o770), (home, 0o777)):
        folder.chmod(mode)
        with pytest.raises(Trouble, match="not sent"):
            find_fleet(None, None, {HOME_VARIABLE: str(home)}, may_be_away=True)
        folder.chmod(0o700)
    with pytest.raises(Trouble, match="not served here"):
        find_fleet(None, None, {HOME_VARIABLE: str(home / "nowhere")}, may_be_away=True)


def test_a_path_that_no_socket_can_have_is_told_in_words(home: Path) -> None:
    longer = home / ("x" * 100)
    longer.symlink_to(home)
    with pytest.raises(Trouble, match="107 bytes"):
        found(longer)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_it_goes_to_no_folder_that_others_may_write_to(home: Path, mode: int) -> None:
    (home / "run").chmod(mode)
    with pytest.raises(Trouble, match="not sent"):
        found(home)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_it_goes_to_no_home_whose_folders_others_may_replace(home: Path, mode: int) -> None:
    home.chmod(mode)
    with pytest.raises(Trouble, match=r"not sent.*\n.*expected 700\n.*chmod 700"):
        found(home)


def test_it_goes_through_no_link_to_a_folder(home: Path) -> None:
    (home / "run").rename(home / "elsewhere")
    (home / "run").symlink_to(home / "elsewhere")
    with pytest.raises(Trouble, match="not sent"):
        found(home)


def test_it_goes_through_no_link_to_a_socket(home: Path) -> None:
    (home / "run" / "admin.sock").rename(home / "run" / "other.sock")
    (home / "run" / "admin.sock").symlink_to("other.sock")
    with pytest.raises(Trouble, match="not sent"):
        found(home)


def test_it_goes_to_nothing_else_than_a_socket(home: Path) -> None:
    (home / "run" / "admin.sock").unlink()
    (home / "run" / "admin.sock").write_text("")
    with pytest.raises(Trouble, match="not sent"):
        found(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_it_goes_to_no_other_account_unless_the_home_was_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (home, home / "run", home / "run" / "admin.sock", home / "operator.token"):
        os.chown(path, SOMEBODY, SOMEBODY)
    assert found(home) == home / "run" / "admin.sock"
    (home / "var").symlink_to(home)
    monkeypatch.chdir(home)
    for environment in ({}, {HOME_VARIABLE: ""}):
        with pytest.raises(Trouble, match="not sent"):
            find_fleet(None, home / "operator.token", environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("part", ["run", "run/admin.sock"])
def test_it_goes_to_no_part_of_a_home_that_is_a_third_accounts(home: Path, part: str) -> None:
    os.chown(home, SOMEBODY, SOMEBODY)
    os.chown(home / part, SOMEBODY + 1, SOMEBODY)
    with pytest.raises(Trouble, match="not sent"):
        found(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what others may not")
@pytest.mark.parametrize("kind", ["a link", "a hard link", "a pipe"])
def test_root_reads_no_file_of_its_own_for_an_account_that_leads_it_there(
    home: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    secret = tmp_path_factory.mktemp("roots") / "secret"
    secret.write_text("of root alone")
    token = home / "operator.token"
    for path in (home, home / "run", home / "run" / "admin.sock", token):
        os.chown(path, SOMEBODY, SOMEBODY)
    assert find_fleet(None, None, {HOME_VARIABLE: str(home)})[1] == "token"
    token.unlink()
    match kind:
        case "a link":
            token.symlink_to(secret)
        case "a hard link":
            token.hardlink_to(secret)
        case _:
            os.mkfifo(token)
            os.chown(token, SOMEBODY, SOMEBODY)
    for url in (None, "http://127.0.0.1:1"):
        with pytest.raises(Trouble, match="not a file of the account"):
            find_fleet(url, None, {HOME_VARIABLE: str(home)})
    assert find_fleet(None, secret, {HOME_VARIABLE: str(home)})[1] == "of root alone"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_it_goes_to_no_home_that_another_account_names(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose link it is may lead it elsewhere between our look and our call."""
    place = tmp_path_factory.mktemp("place")
    (place / "var").symlink_to(home)
    monkeypatch.chdir(place)
    assert find_fleet(None, None, {})[0] == Path("var/run/admin.sock")
    os.chown(place / "var", SOMEBODY, SOMEBODY, follow_symlinks=False)
    for environment in ({}, {HOME_VARIABLE: str(place / "var")}):
        with pytest.raises(Trouble, match="not sent"):
            find_fleet(None, None, environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_only_root_asks_a_fleet_of_another_account(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may make a home where a variable names one that is not there now."""
    for path in (home, home / "run", home / "run" / "admin.sock"):
        os.chown(path, SOMEBODY, SOMEBODY)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY + 1)
    with pytest.raises(Trouble, match="not sent"):
        find_fleet(None, home / "operator.token", {HOME_VARIABLE: str(home)})


@pytest.mark.e2e
async def test_who_takes_the_port_of_a_killed_fleet_is_told_nothing(shell: Shell) -> None:
    process = await shell.start("serve", "--admin", "127.0.0.1:0")
    try:
        file = shell.home / "admin.url"
        await until("it is served", file.exists)
        await until("it answers", lambda: answers(shell))
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    port = int(file.read_text().strip().rpartition(":")[2])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        taken.setblocking(False)
        said = await shell("worker", "list")
        assert said.code == ExitCode.UNREACHABLE, said.err
        with pytest.raises(BlockingIOError):
            taken.accept()
        async with running(shell):  # what the killed one left is replaced
            assert await answers(shell)
    assert not (shell.home / "run" / "admin.sock").exists()


async def answers(shell: Shell) -> bool:
    return (await shell("worker", "list")).code == 0
