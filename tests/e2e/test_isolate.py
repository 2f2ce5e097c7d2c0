"""`run --isolate`: real programs, also those that never heard of a proxy, reach the network through
the proxy or not at all.

The upstream counts what reaches it past the proxy as well: it listens on this machine's loopback,
where every program that is not isolated reaches it.
"""

import contextlib
import hashlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.place import Place, is_alive
from tests.e2e.programs import Finished
from tests.e2e.upstreams import API
from tests.fakes.until import until


def can_isolate() -> str | None:
    """Why this machine cannot isolate, or None: asked of bubblewrap itself."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed, so isolation was not tried"
    tried = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true")
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no namespaces here: {done.stderr.strip()}"


WHY_NOT = can_isolate()
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
    pytest.mark.usefixtures("work"),
]

RAW = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=3)
except OSError as error:
    print("blocked:", error.strerror)
else:
    print("OUT")
"""
FETCH = """
fetch(process.argv[1]).then(
    () => console.log("OUT"),
    (error) => console.log("blocked:", error.cause.code),
)
"""


@pytest.fixture
def work(place: Place) -> Path:
    """Where the program works: not in the home of the person who runs it."""
    directory = place.directory / "project"
    directory.mkdir()
    return directory


async def isolated(place: Place, *command: str | Path) -> Finished:
    directory = place.directory / "project"
    return await place.run_to_its_end("api", *command, options=("--isolate",), directory=directory)


async def test_curl_gets_what_its_profile_allows_and_the_fleet_calls_it_enforced(
    place: Place, curl: str
) -> None:
    await place.up()
    url = place.upstreams.url(API, "/open/thing")
    done = await isolated(place, curl, "-sS", url)
    assert done.code == 0, done.said
    assert '"path": "/open/thing"' in done.out
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/thing"]
    (registered,) = await place.events("worker.registered")
    assert registered.detail["binding_level"] == "enforced"


async def test_a_run_that_is_not_isolated_is_observed_only(place: Place, curl: str) -> None:
    await place.up()
    await place.run_to_its_end("api", curl, "-sS", place.upstreams.url(API, "/open/thing"))
    (registered,) = await place.events("worker.registered")
    assert registered.detail["binding_level"] == "observed"


async def test_a_profile_that_demands_enforced_holds_for_the_isolated_only(
    place: Place, curl: str
) -> None:
    await place.up()
    command = (curl, "-sS", place.upstreams.url(API, "/open/thing"))
    refused = await place.run_to_its_end("api-isolated", *command)
    assert refused.code != 0 and "403" in refused.err
    assert "egress.profile_requirements" in refused.err  # the run's own summary says why
    assert place.upstreams.seen == []
    directory = place.directory / "project"
    options = ("--isolate",)
    done = await place.run_to_its_end(
        "api-isolated", *command, options=options, directory=directory
    )
    assert done.code == 0, done.said
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/thing"]


async def test_curl_that_is_told_to_use_no_proxy_gets_nowhere(place: Place, curl: str) -> None:
    await place.up()
    port = place.upstreams.port
    around = ("-sS", "--noproxy", "*", "-k", "--max-time", "5")
    direct = f"https://127.0.0.1:{port}/open/thing"
    assert (await place.run_to_its_end("api", curl, *around, direct)).code == 0
    before = len(place.upstreams.seen)
    assert before == 1, "the check can fail: outside, the same command gets there"
    done = await isolated(place, curl, *around, direct)
    assert done.code == 7, done.said  # curl's "failed to connect"
    assert len(place.upstreams.seen) == before


async def test_a_raw_socket_gets_nowhere(place: Place) -> None:
    await place.up()
    port = str(place.upstreams.port)
    outside = await place.run_to_its_end("api", sys.executable, "-c", RAW, port)
    assert outside.out.strip() == "OUT"
    done = await isolated(place, sys.executable, "-c", RAW, port)
    assert done.out.strip() == "blocked: Connection refused"


async def test_nodes_fetch_which_ignores_proxy_variables_gets_nowhere(
    place: Place, node: str
) -> None:
    await place.up()
    url = f"http://127.0.0.1:{place.upstreams.port}/"
    done = await isolated(place, node, "-e", FETCH, url)
    assert done.out.strip() == "blocked: ECONNREFUSED", done.said


async def test_dig_finds_no_name_server(place: Place) -> None:
    dig = shutil.which("dig")
    if dig is None:
        pytest.skip("dig is not installed, so this client was not tried")
    await place.up()
    done = await isolated(place, dig, "+time=1", "+tries=1", "@127.0.0.1", "leak.example")
    assert done.code == 9, done.said  # dig's "no reply from server"


async def test_keys_tokens_and_other_programs_sockets_are_not_there(place: Place) -> None:
    await place.up()
    listing = f"ls -A {place.home} /run; test -w / && echo writable; echo done"
    done = await isolated(place, "/bin/sh", "-c", listing)
    shown = [line for line in done.out.splitlines() if line and not line.endswith(":")]
    assert shown == ["done"]


async def test_the_program_writes_where_it_works_and_nowhere_else(place: Place, work: Path) -> None:
    await place.up()
    script = 'echo x > "$PALYRA_WORKSPACE/own" && echo x > "$TMPDIR/own" && echo x > here; '
    script += "echo x > /etc/there 2>/dev/null || echo refused"
    done = await isolated(place, "/bin/sh", "-c", script)
    assert (done.code, done.out.strip()) == (0, "refused"), done.said
    assert (work / "here").read_text() == "x\n"


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


TRY_TO_WRITE = """
import os, pathlib, sys
workspace = pathlib.Path(os.environ["PALYRA_WORKSPACE"])
(pathlib.Path(os.environ["TMPDIR"]) / "own").write_text("x")
print((workspace / "in" / "rows").read_text().strip(), pathlib.Path("rows").read_text().strip())
os.chmod(workspace / "tmp", 0o700)
here = pathlib.Path()
for place in (workspace / "new", workspace / "in" / "rows", here / "rows", here / "new"):
    write, widen = lambda: place.write_text("changed"), lambda: place.parent.chmod(0o777)
    for attempt in (write, widen, place.unlink):
        try:
            attempt()
        except OSError as error:
            if error.strerror not in {"Read-only file system", "No such file or directory"}:
                raise
        else:
            print("WRITTEN", place)
"""


async def test_a_run_that_may_only_read_changes_nothing_of_the_machine(
    place: Place, work: Path
) -> None:
    await place.up()
    (work / "rows").write_text("rows\n")
    command = ("api", sys.executable, "-c", TRY_TO_WRITE)
    carried = ("--isolate", "--carry-in", "rows")
    free = await place.run_to_its_end(*command, options=carried, directory=work)
    assert "WRITTEN" in free.out, "the check can fail: a run that may write does"
    (work / "rows").write_text("rows\n")
    done = await place.run_to_its_end(*command, options=(*carried, "--read-only"), directory=work)
    assert (done.code, done.out) == (0, "rows rows\n"), done.said
    assert names_in(work) == ["rows"]
    assert (work / "rows").read_text() == "rows\n"
    assert len(await place.events("worker.completed")) == 2


async def test_a_run_takes_its_input_which_it_cannot_change_and_gives_its_output(
    place: Place, work: Path
) -> None:
    await place.up()
    (work / "rows").write_text("rows\n")
    script = 'cat "$PALYRA_INPUTS/rows" > "$PALYRA_OUTPUTS/report"; '
    script += 'chmod u+w "$PALYRA_INPUTS" 2>/dev/null; rm -f "$PALYRA_INPUTS/rows" 2>/dev/null; '
    script += 'cat "$PALYRA_INPUTS/rows"'
    done = await place.run_to_its_end(
        *("api", "/bin/sh", "-c", script),
        options=("--isolate", "--carry-in", "rows", "--carry-out", "report", "--carry-to", "."),
        directory=work,
    )
    assert (done.code, done.out) == (0, "rows\n"), done.said
    assert (work / "report").read_text() == "rows\n"
    digest = hashlib.sha256(b"rows\n").hexdigest()
    (given,) = await place.events("worker.assigned")
    assert given.detail["inputs_sha256sum"] == f"{digest}  rows"
    (completed,) = await place.events("worker.completed")
    assert completed.detail["outputs_sha256sum"] == f"{digest}  report"


def processes_in(namespace: str) -> list[str]:
    """The living processes of a process namespace, `pid:[number]`, as seen from outside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((process / "ns/pid").readlink()) == namespace and is_alive(int(process.name)):
                found.append(process.name)
    return found


async def test_a_daemon_that_hides_ends_with_the_run(place: Place) -> None:
    """It leaves its group, its session and its environment: the namespace still holds it."""
    await place.up()
    code = "import os; print(os.readlink('/proc/self/ns/pid'), flush=True)\n"
    code += "if os.fork() == 0:\n os.setsid()\n os.execve('/bin/sleep', ['sleep', '300'], {})\n"
    code += "os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)"
    done = await isolated(place, sys.executable, "-c", code)
    assert done.code == 0, done.said
    assert processes_in(done.out.strip()) == []
    assert len(await place.events("worker.completed")) == 1


async def test_when_the_launcher_is_killed_the_program_dies_with_it(place: Place) -> None:
    await place.up()
    script = "readlink /proc/self/ns/pid; exec sleep 300"
    program = await place.run(
        "api", "/bin/sh", "-c", script, options=("--isolate",), directory=place.directory
    )
    namespace = await program.line(0)
    assert processes_in(namespace)
    await program.kill()
    await until("the namespace is empty", lambda: not processes_in(namespace))


async def test_ctrl_c_reaches_the_program_inside(place: Place) -> None:
    await place.up()
    script = 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.05; done'
    program = await place.run(
        "api", "/bin/sh", "-c", script, options=("--isolate",), directory=place.directory
    )
    await program.says("ready")
    program.signal(signal.SIGINT)
    assert await program.ended() == 9
    assert "caught" in program.out.text


async def test_a_working_directory_that_is_hidden_is_told_before_anything_runs(
    place: Place,
) -> None:
    await place.up()
    done = await place.run_to_its_end(
        "api", "/bin/true", options=("--isolate",), directory=place.home
    )
    assert done.code == 2
    assert "is hidden from workers; start from elsewhere" in done.err
