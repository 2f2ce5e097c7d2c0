"""Isolation, piece by piece: the view, the canary, the door, what counts as proof."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from palyra_fleet.worker.isolation import canary, start
from palyra_fleet.worker.isolation.door import Door
from palyra_fleet.worker.isolation.namespace import View, namespace_arguments
from palyra_fleet.worker.isolation.proof import expected_attempts, problems_of, prove_isolation
from palyra_fleet.worker.isolation.sandbox import make_view, own_code, read_only_view
from palyra_fleet.worker.isolation.start import IsolationUnavailable, Order, find_bubblewrap

ASKED = {
    "listeners": [["127.0.0.1", "4000"]],
    "resolvers": [["192.0.2.53"]],
    "sockets": [["/var/lib/other.sock"]],
    "pipes": [["/var/lib/commands"]],
    "hidden": [["/run"]],
    "read_only": [["/etc"]],
    "door": [["3128"]],
}
ALL_BLOCKED = {name: "blocked: as it should be" for name in expected_attempts(ASKED)}
PROVEN = ALL_BLOCKED | {"door": "through"}

needs_namespaces = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap is not installed, so isolation was not tried"
)


# --- the view -----------------------------------------------------------------------------------


def test_hidden_places_are_laid_over_everything_that_is_shown():
    view = View((Path("/w"), Path("/p")), (Path("/tmp/exe"),), (Path("/p/var"),), Path("/p"))
    words = namespace_arguments("bwrap", view, 7)
    order = [words.index(word) for word in ("/tmp", "/tmp/exe", "/w", "/p", "/p/var")]
    assert order == sorted(order)
    assert words[words.index("/p/var") - 1] == "--tmpfs"
    assert words[-1] == "--"


@pytest.mark.parametrize(
    "word",
    ["--unshare-all", "--disable-userns", "--die-with-parent", "--new-session", "--clearenv"],
)
def test_nothing_is_shared_that_need_not_be(word):
    assert word in namespace_arguments("bwrap", View(()), 7)


def test_the_file_system_is_read_only_before_anything_is_shown():
    words = namespace_arguments("bwrap", View((Path("/w"),)), 7)
    assert words[words.index("--ro-bind") :][:3] == ["--ro-bind", "/", "/"]
    assert words.index("--ro-bind") < words.index("--bind")


def test_settings_of_the_kernel_are_read_only_once_the_process_table_is_there() -> None:
    words = namespace_arguments("bwrap", View(()), 7)
    at = words.index("/proc/sys")
    assert words[at - 1 : at + 2] == ["--ro-bind", "/proc/sys", "/proc/sys"]
    assert words.index("--proc") < at


def test_an_account_without_a_name_or_a_home_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(start.pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    assert start.homes() == ()
    monkeypatch.setenv("HOME", "/elsewhere")
    assert start.homes() == (Path("/elsewhere"),)


def test_a_home_that_the_environment_does_not_name_is_kept_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `sudo` may leave it: HOME of the person, and the account of root."""
    monkeypatch.setattr(start.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir="/root"))
    monkeypatch.setenv("HOME", "/elsewhere")
    assert start.homes() == (Path("/root"), Path("/elsewhere"))


def test_a_project_is_writable_and_a_home_is_not(tmp_path):
    home, project = tmp_path / "home", tmp_path / "home" / "project"
    project.mkdir(parents=True)
    assert make_view((), Path("/w"), project, (home,)).writable == (Path("/w"), project)
    for place in (home, tmp_path, Path("/")):
        assert make_view((), Path("/w"), place, (home,)).writable == (Path("/w"),)


@pytest.mark.parametrize("code", ["project/.venv/bin", "project", "."])
def test_code_that_runs_outside_is_not_writable(tmp_path, code):
    project = tmp_path / "project"
    project.mkdir()
    view = make_view((), Path("/w"), project, (Path("/h"),), (tmp_path / code,))
    assert (view.writable, view.readable) == ((Path("/w"),), (project,))


def test_the_code_that_runs_outside_is_this_package_and_its_interpreters():
    own = own_code()
    for loaded in (canary.__file__, json.__file__, pytest.__file__):
        assert any(Path(loaded).resolve().is_relative_to(one.resolve()) for one in own)
    assert Path(sys.executable).parent in own


@pytest.mark.parametrize("place", ["/etc/cron.d", "/usr", "/proc/sys/kernel", "/sys/fs/cgroup"])
def test_a_systems_place_is_not_writable(place: str) -> None:
    view = make_view((), Path("/w"), Path(place), (Path("/h"),))
    assert (view.writable, view.readable) == ((Path("/w"),), (Path(place),))


def test_a_hidden_file_is_unreadable_and_a_hidden_directory_empty(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    (tmp_path / "keys").mkdir()
    view = make_view((tmp_path / "token", tmp_path / "keys"), Path("/w"), Path("/p"), (Path("/h"),))
    assert (view.hidden, view.unreadable) == ((tmp_path / "keys",), (tmp_path / "token",))


def test_what_is_hidden_with_what_is_around_it_is_hidden_once(tmp_path: Path) -> None:
    """Else an empty directory would stand in the outer one, and be taken for something seen."""
    inner, token = tmp_path / "inner", tmp_path / "token"
    inner.mkdir()
    token.touch()
    view = make_view((inner, tmp_path, token, inner), Path("/w"), Path("/p"), (Path("/h"),))
    assert (view.hidden, view.unreadable) == ((tmp_path,), ())


def test_a_workspace_that_would_be_hidden_from_its_own_run_is_refused_by_name(tmp_path):
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    for directory in (state, elsewhere):
        directory.mkdir()
    with pytest.raises(IsolationUnavailable, match=f"with {state}; set TMPDIR"):
        make_view((state,), state / "palyra-run-x", elsewhere, ())


def test_a_hidden_working_directory_is_refused(tmp_path):
    with pytest.raises(IsolationUnavailable, match="hidden from workers"):
        make_view((tmp_path,), Path("/w"), tmp_path / "below", (Path("/h"),))


def test_a_hidden_directory_that_is_not_there_needs_no_hiding(tmp_path):
    assert make_view((tmp_path / "none",), Path("/w"), tmp_path, (Path("/h"),)).hidden == ()


def test_an_order_shows_no_environment():
    order = Order(Path("/bin/true"), ("true",), {"HTTP_PROXY": "http://lease:secret@proxy"})
    assert "secret" not in repr(order)
    assert json.loads(order.to_bytes())["environment"]["HTTP_PROXY"].endswith("@proxy")


# --- what counts as proof -----------------------------------------------------------------------


def test_everything_blocked_and_the_door_open_is_proof():
    assert problems_of(PROVEN, ASKED) == ()


@pytest.mark.parametrize("name", [name for name in PROVEN if name != "door"])
@pytest.mark.parametrize("outcome", ["OUT: connected", "", "through", "nonsense"])
def test_anything_else_for_any_attempt_is_a_problem(name, outcome):
    assert problems_of(PROVEN | {name: outcome}, ASKED) == (f"{name} ({outcome})",)


@pytest.mark.parametrize("name", list(PROVEN))
def test_an_attempt_that_was_not_made_is_a_problem(name):
    report = {key: value for key, value in PROVEN.items() if key != name}
    assert problems_of(report, ASKED) == (f"{name} (not tried)",)


@pytest.mark.parametrize("outcome", ["blocked: refused", "OUT: connected"])
def test_a_closed_door_is_a_problem(outcome):
    assert problems_of(PROVEN | {"door": outcome}, ASKED) == (f"door ({outcome})",)


async def test_the_canary_outside_of_any_isolation_says_so(tmp_path):
    """The check can fail: run here, the same program gets out by every way that exists here."""
    other = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(other))
        listening.listen()
        async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0) as server:
            port = str(server.sockets[0].getsockname()[1])
            asked = ASKED | {
                "listeners": [["127.0.0.1", port]],
                "resolvers": [],
                "sockets": [[str(other)]],
                "hidden": [[str(tmp_path)]],
                "read_only": [[str(tmp_path)]],
            }
            report = await run_canary(asked)
    assert report["tcp 127.0.0.1"].startswith("OUT")
    assert report[f"socket {other}"].startswith("OUT")
    assert report[f"see {tmp_path}"].startswith("OUT")
    assert report[f"write {tmp_path}"].startswith("OUT")
    assert report["privileges"].startswith("OUT")
    assert report["processes"].startswith("OUT")
    assert report["key rings"].startswith("OUT")
    assert report["set-user-ID"] == "OUT: made"
    if os.access("/proc/sys/kernel/core_pattern", os.W_OK):  # we are root
        assert "core_pattern" in report["kernel settings"]
    assert report["door"].startswith("blocked")
    assert len(problems_of(report, asked)) >= 7


async def run_canary(asked: dict[str, list[list[str]]]) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", canary.__file__, json.dumps(asked)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    found: dict[str, str] = json.loads(output)
    return found


@needs_namespaces
async def test_the_proof_holds_on_this_machine(tmp_path):
    hidden = tmp_path / "secrets"
    hidden.mkdir()
    (hidden / "key").write_text("secret")
    token = tmp_path / "token"
    token.write_text("secret")
    await prove_isolation(View((tmp_path,), (), (hidden,), tmp_path, unreadable=(token,)))


@needs_namespaces
async def test_the_canary_finds_a_workspace_that_was_to_be_read_only_and_is_not(tmp_path):
    """A mount that is forgotten is found: here the working directory is shown writable."""
    workspace, project = tmp_path / "workspace", tmp_path / "project"
    (workspace / "tmp").mkdir(parents=True)
    project.mkdir()
    view = View((workspace, project), (), (), project)
    kept = read_only_view(view, workspace, workspace / "tmp")
    await prove_isolation(kept)
    with pytest.raises(IsolationUnavailable, match=rf"write {project} \(OUT: written\)"):
        await prove_isolation(replace(kept, writable=(project,)))


@needs_namespaces
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
async def test_a_socket_of_another_program_that_would_be_reachable_is_found(tmp_path, kind):
    """It lies where the program works: nothing hides it, so nothing is proven."""
    other = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX, kind) as held:
        held.bind(str(other))
        if kind != socket.SOCK_DGRAM:
            held.listen()
        with pytest.raises(IsolationUnavailable, match=r"docker\.sock \(OUT: connected\)"):
            await prove_isolation(View((tmp_path,), (), (), tmp_path))


@needs_namespaces
async def test_a_named_pipe_that_another_program_reads_is_found(tmp_path):
    """Mounts that are read-only let everybody write to it who may."""
    pipe = tmp_path / "commands"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(IsolationUnavailable, match=r"pipe .*commands \(OUT: writable\)"):
            await prove_isolation(View((), (tmp_path,), (), tmp_path))
    finally:
        os.close(reading)


async def test_without_bubblewrap_the_text_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "BUBBLEWRAP_PLACES", (tmp_path / "bwrap",))
    with pytest.raises(IsolationUnavailable, match="install the package bubblewrap"):
        await prove_isolation(View((tmp_path,)))


async def test_a_bubblewrap_that_may_not_make_namespaces_is_told(tmp_path, monkeypatch):
    refusing = tmp_path / "bwrap"
    refusing.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    refusing.chmod(0o755)
    monkeypatch.setattr(start, "find_bubblewrap", lambda: str(refusing))
    with pytest.raises(IsolationUnavailable, match="No permissions to create new namespace"):
        await prove_isolation(View((tmp_path,)))


@needs_namespaces
async def test_a_bubblewrap_that_stands_first_on_the_path_is_never_run(tmp_path, monkeypatch):
    """An earlier worker left it in a project's folder that is on the PATH."""
    planted, ran = tmp_path / "bwrap", tmp_path / "ran"
    planted.write_text(f'#!/bin/sh\n: > {ran}\nexec /usr/bin/bwrap "$@"\n')
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    await prove_isolation(View((tmp_path,)))
    assert not ran.exists()


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_bubblewrap_that_others_may_change_is_not_trusted(tmp_path, monkeypatch, mode):
    loose = tmp_path / "bwrap"
    loose.touch()
    loose.chmod(mode)
    monkeypatch.setattr(start, "BUBBLEWRAP_PLACES", (loose,))
    with pytest.raises(IsolationUnavailable, match="is not trusted"):
        find_bubblewrap()


# --- the door -----------------------------------------------------------------------------------


@pytest.fixture
async def echo():
    """Stands for the proxy: sends everything back until the other side has ended."""

    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_the_door_carries_bytes_both_ways_and_their_end(echo):
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    door = Door(listening, f"127.0.0.1:{echo}")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = b"x" * 3_000_000
    writer.write(sent)
    writer.write_eof()
    assert await reader.read(-1) == sent
    writer.close()
    await door.close()


async def test_a_door_whose_proxy_is_gone_closes_what_comes():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        gone = unused.getsockname()[1]
    listening = socket.create_server(("127.0.0.1", 0))
    door = Door(listening, f"127.0.0.1:{gone}")
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    with pytest.raises(ConnectionError):
        writer.write(b"x")
        if not await reader.read(1):
            raise ConnectionResetError
    writer.close()
    await door.close()


async def test_a_closed_door_ends_what_is_open(echo):
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    door = Door(listening, f"127.0.0.1:{echo}")
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"ping")
    assert await reader.readexactly(4) == b"ping"
    await door.close()
    with pytest.raises(ConnectionError):
        if not await reader.read(1):
            raise ConnectionResetError
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


def test_what_runs_inside_first_needs_nothing_but_the_standard_library():
    """It runs with -I, before the program, where our packages may not be seen."""
    for module in ("inside", "canary"):
        path = Path(canary.__file__).with_name(f"{module}.py")
        code = f"import runpy, sys; sys.argv = ['x', '{{}}']; runpy.run_path({str(path)!r})"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
