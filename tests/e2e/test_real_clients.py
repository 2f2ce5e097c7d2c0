"""Programs that people really use, run as workers: what is allowed works, what is not says why.

Each starts the installation and the worker as processes of their own; the upstreams are real too.
"""

import sys
from pathlib import Path

import pytest

from tests.e2e.go_client import BUILT_WITHIN_S, go_client
from tests.e2e.place import Place
from tests.e2e.upstreams import API, GIT, PACKAGES, REPOSITORY, WHEEL

NODE_CLIENT = Path(__file__).with_name("node_client.mjs")


async def test_curl_gets_what_its_profile_allows(place: Place, curl: str) -> None:
    await place.up()
    url = place.upstreams.url(API, "/open/thing")
    done = await place.run_to_its_end("api", curl, "-sS", url)
    assert done.code == 0, done.said
    assert '"path": "/open/thing"' in done.out
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/thing"]
    assert place.upstreams.leaked_headers == set()


async def test_curl_shows_the_reason_when_the_host_is_not_allowed(place: Place, curl: str) -> None:
    await place.up()
    url = place.upstreams.url(PACKAGES, "/simple/")
    done = await place.run_to_its_end("api", curl, "-sSi", url)
    assert done.code == 56  # curl's "CONNECT tunnel failed"
    assert "CONNECT tunnel failed, response 403" in done.err
    assert "403 Palyra: egress.host_not_allowed" in done.out
    assert place.upstreams.seen == []


@pytest.mark.parametrize(
    ("arguments", "path", "reason"),
    [
        ((), "/closed", "egress.path_not_allowed"),
        (("-X", "DELETE"), "/open/thing", "egress.method_not_allowed"),
        (("-d", "secret=1"), "/open/thing", "egress.method_not_allowed"),
    ],
    ids=["path", "method", "upload"],
)
async def test_curl_shows_the_reason_of_a_refusal_inside_the_tunnel(
    place: Place, curl: str, arguments: tuple[str, ...], path: str, reason: str
) -> None:
    await place.up()
    url = place.upstreams.url(API, path)
    done = await place.run_to_its_end("api", curl, "-sS", "--fail-with-body", *arguments, url)
    assert done.code == 22, done.said
    assert "403" in done.err
    assert f'"reason": "{reason}"' in done.out
    assert place.upstreams.seen == []


async def test_curl_through_socks_as_the_run_names_it(place: Place, curl: str) -> None:
    await place.up("--listen-socks", "127.0.0.1:0")
    url = place.upstreams.url(API, "/open/thing")
    script = f'unset http_proxy https_proxy HTTPS_PROXY; exec {curl} -sS "$1"'
    socks = ("--socks",)
    done = await place.run_to_its_end("api", "sh", "-c", script, "sh", url, options=socks)
    assert done.code == 0, done.said
    assert '"path": "/open/thing"' in done.out
    refused = place.upstreams.url(PACKAGES, "/simple/")
    done = await place.run_to_its_end("api", "sh", "-c", script, "sh", refused, options=socks)
    assert done.code == 97  # curl's "the proxy handshake failed"
    assert "egress.host_not_allowed" in done.err
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/thing"]


async def test_git_clones_over_smart_http(place: Place, git: str, repository: str) -> None:
    await place.up()
    clone = place.directory / "clone"
    done = await place.run_to_its_end("git", git, "clone", "-q", repository, clone)
    assert done.code == 0, done.said
    assert (clone / "hello.txt").read_text() == "hello from git\n"
    assert {(r.method, r.path) for r in place.upstreams.of(GIT)} == {
        ("GET", f"{REPOSITORY}/info/refs"),
        ("POST", f"{REPOSITORY}/git-upload-pack"),
    }
    assert place.upstreams.leaked_headers == set()


async def test_git_says_403_when_its_profile_has_no_git(
    place: Place, git: str, repository: str
) -> None:
    await place.up()
    clone = place.directory / "clone"
    done = await place.run_to_its_end("api", git, "clone", "-q", repository, clone)
    assert done.code == 128
    assert "CONNECT tunnel failed, response 403" in done.err
    assert place.upstreams.seen == []
    reasons = [entry["reason"] for entry in place.audit() if entry["kind"] == "verdict"]
    assert "egress.host_not_allowed" in reasons


async def test_pip_downloads_a_wheel_from_the_index(place: Place, pip: tuple[str, ...]) -> None:
    await place.up()
    index = place.upstreams.url(PACKAGES, "/simple/")
    done = await place.run_to_its_end(
        *("packages", *pip, "--index-url", index, "-d", place.directory / "got", "palyra-probe")
    )
    assert done.code == 0, done.said
    assert (place.directory / "got" / WHEEL).read_bytes() == place.upstreams.wheel
    assert [str(request) for request in place.upstreams.seen] == [
        f"GET {PACKAGES}/simple/palyra-probe/",
        f"GET {PACKAGES}/files/{WHEEL}",
    ]
    assert place.upstreams.leaked_headers == set()


async def test_pip_shows_the_reason_when_the_index_is_not_allowed(
    place: Place, pip: tuple[str, ...]
) -> None:
    await place.up()
    index = place.upstreams.url(PACKAGES, "/simple/")
    done = await place.run_to_its_end(
        *("api", *pip, "--index-url", index, "-d", place.directory / "got", "palyra-probe")
    )
    assert done.code == 1
    assert "403 Palyra: egress.host_not_allowed" in done.err
    assert place.upstreams.seen == []


async def test_a_node_program_that_honours_the_variables_gets_through(
    place: Place, node: str
) -> None:
    await place.up()
    url = place.upstreams.url(API, "/open/node")
    done = await place.run_to_its_end("api", node, NODE_CLIENT, url)
    assert done.code == 0, done.said
    assert done.out.startswith("200 OK")
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/node"]
    assert place.upstreams.leaked_headers == set()


@pytest.mark.parametrize(
    ("host", "path", "reason"),
    [
        (PACKAGES, "/simple/", "CONNECT: 403 Palyra: egress.host_not_allowed"),
        (API, "/closed", "403 Palyra: egress.path_not_allowed"),
    ],
    ids=["host", "path"],
)
async def test_a_node_program_reads_the_reason_of_a_refusal(
    place: Place, node: str, host: str, path: str, reason: str
) -> None:
    await place.up()
    url = place.upstreams.url(host, path)
    done = await place.run_to_its_end("api", node, NODE_CLIENT, url)
    assert done.code == 1
    assert reason in done.err
    assert place.upstreams.seen == []


async def test_nodes_built_in_fetch_does_not_come_through_the_proxy_by_itself(
    place: Place, node: str
) -> None:
    """Variables are a convenience: what enforces is that nothing else leads out."""
    version = await place.programs.finished(node, "--version", environment=place.environment)
    major = int(version.out.removeprefix("v").partition(".")[0])
    if major >= 24:
        pytest.skip(f"Node {major} honours NODE_USE_ENV_PROXY")
    await place.up()
    url = place.upstreams.url(API, "/open/fetch")
    done = await place.run_to_its_end("api", node, NODE_CLIENT, url, "--fetch")
    assert done.code == 1
    assert "fetch failed: " in done.err
    assert place.upstreams.seen == []
    verdicts = [entry for entry in place.audit() if entry.get("method")]
    assert verdicts == []


@pytest.mark.timeout(BUILT_WITHIN_S + 180)
async def test_gos_own_client_gets_through_over_http2_and_reads_refusals(place: Place) -> None:
    program = await go_client(place.directory)
    await place.up()
    done = await place.run_to_its_end("api", program, place.upstreams.url(API, "/open/go"))
    assert done.code == 0, done.said
    assert done.out.startswith("HTTP/2.0 200 OK")
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/go"]
    assert place.upstreams.leaked_headers == set()
    refused = await place.run_to_its_end("api", program, place.upstreams.url(PACKAGES, "/simple/"))
    assert refused.code == 1
    assert "Palyra: egress.host_not_allowed" in refused.out
    closed = await place.run_to_its_end("api", program, place.upstreams.url(API, "/closed"))
    assert closed.out.startswith("HTTP/2.0 403 Forbidden")
    assert '"reason": "egress.path_not_allowed"' in closed.out


async def test_pythons_own_client_gets_through_and_reads_refusals(place: Place) -> None:
    await place.up()
    puppet = await place.puppet("api")
    allowed = await puppet.get(place.upstreams.url(API, "/open/python"))
    assert allowed["status"] == 200
    refused = await puppet.get(place.upstreams.url(GIT, "/"))
    assert refused["text"] == (
        "URLError: <urlopen error Tunnel connection failed: 403 Palyra: egress.host_not_allowed>"
    )
    inside = await puppet.get(place.upstreams.url(API, "/closed"))
    assert inside["text"] == "HTTP 403 Palyra: egress.path_not_allowed"
    assert await puppet.exit(0) == 0
    assert [str(request) for request in place.upstreams.seen] == [f"GET {API}/open/python"]


async def test_a_worker_inherits_no_proxy_or_ca_setting_of_the_machine(place: Place) -> None:
    """The environment `run` is called with is hostile; nothing of it reaches the program."""
    await place.up()
    report = "import json, os; print(json.dumps(dict(os.environ)))"
    done = await place.run_to_its_end("api", sys.executable, "-c", report)
    assert done.code == 0, done.said
    assert "/nonexistent/" not in done.out
    assert "127.0.0.1:9/" not in done.out and '"http://127.0.0.1:9"' not in done.out
    assert '"NO_PROXY": ""' in done.out and '"no_proxy": ""' in done.out
    assert "PALYRA_HOME" not in done.out
