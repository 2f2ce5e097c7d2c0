"""Each variable that `palyra-egress env` prints, alone, with the real client that reads it.

The client runs with one row of the table and the rows that it needs to get so far; without the one
the same command must fail. The client of a row is the first that the table names as its reader, and
docs/reference/environment.md says so. A client that is not installed skips its rows; a Node.js
that reads NODE_USE_ENV_PROXY always is.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import playwright
import pytest

from palyra_fleet.worker.environment import TABLE
from tests.e2e.conftest import made_repository, needed, pip_download
from tests.e2e.place import Place
from tests.e2e.upstreams import API, GIT, PACKAGES, REPOSITORY

OF_THE_PROXY = "Palyra"
REQUESTS = (
    "import requests, sys; answer = requests.get(sys.argv[1]);"
    f" sys.exit(answer.status_code != 200 and {OF_THE_PROXY!r} not in answer.reason)"
)
NODE_CLIENT = Path(__file__).with_name("node_client.mjs")


@dataclass(frozen=True, slots=True)
class Trial:
    """One row, a command that works only with it, and the other rows it takes. `around` is what an
    environment holds that the row must change. `{url}` and its like are filled."""

    row: str
    client: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    around: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Client:
    """A program and the profile it needs. `found` gives its command, or skips."""

    found: Callable[[], tuple[str, ...]]
    profile: str = "api"
    settings: tuple[tuple[str, str], ...] = ()


def installed(program: str) -> Callable[[], tuple[str, ...]]:
    return lambda: (needed(program),)


def node_with_the_variable() -> tuple[str, ...]:
    """The Node.js that Playwright's wheel carries, locked with it: the one on the PATH may be older
    than the variable."""
    return (str(Path(playwright.__file__).parent / "driver" / "node"),)


CLIENTS = {
    "curl": Client(installed("curl")),
    "requests": Client(lambda: (sys.executable, "-c", REQUESTS)),
    "Node.js": Client(installed("node")),
    "Node.js from 22.21 and 24 on": Client(node_with_the_variable),
    "git": Client(
        installed("git"),
        "git",
        (("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", os.devnull)),
    ),
    "pip": Client(
        pip_download,
        "packages",
        (("PIP_CONFIG_FILE", os.devnull), ("PIP_DISABLE_PIP_VERSION_CHECK", "1")),
    ),
    "npm": Client(installed("npm"), "packages", (("npm_config_update_notifier", "false"),)),
    "cargo": Client(
        installed("cargo"),
        "packages",
        (("RUSTUP_HOME", os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))),),
    ),
    "AWS CLI": Client(
        installed("aws"),
        settings=(("AWS_MAX_ATTEMPTS", "1"), ("AWS_EC2_METADATA_DISABLED", "true")),
    ),
}
_GET = ("-sSf", "-o", os.devnull, "{url}")
_SAYS = ("-sS", "-D", os.devnull, "-o", os.devnull, "{plain}")
_AWS = ("lambda", "list-functions", "--endpoint-url", "{api}", "--no-sign-request")
_CA, _BY = ("CURL_CA_BUNDLE",), ("HTTPS_PROXY",)
TRIALS = (
    # the policy refuses plain HTTP: that the proxy says so shows that it was asked
    Trial("HTTP_PROXY", "requests", ("{plain}",)),
    Trial("http_proxy", "curl", _SAYS),
    Trial("HTTPS_PROXY", "curl", _GET, _CA),
    Trial("https_proxy", "curl", _GET, _CA),
    Trial("ALL_PROXY", "curl", _GET, _CA),
    Trial("all_proxy", "curl", _GET, _CA),
    Trial("NO_PROXY", "curl", _GET, (*_CA, *_BY), around=(("NO_PROXY", "*"),)),
    Trial("no_proxy", "curl", _GET, (*_CA, *_BY), around=(("no_proxy", "*"),)),
    Trial("SSL_CERT_FILE", "curl", _GET, _BY),
    Trial("CURL_CA_BUNDLE", "curl", _GET, _BY),
    Trial("REQUESTS_CA_BUNDLE", "requests", ("{url}",), _BY),
    Trial("NODE_EXTRA_CA_CERTS", "Node.js", (str(NODE_CLIENT), "{url}"), _BY),
    Trial(
        "NODE_USE_ENV_PROXY",
        "Node.js from 22.21 and 24 on",
        (str(NODE_CLIENT), "{url}", "--fetch"),
        (*_BY, "NODE_EXTRA_CA_CERTS"),
    ),
    Trial("GIT_SSL_CAINFO", "git", ("ls-remote", "{repository}"), _BY),
    Trial("PIP_CERT", "pip", ("--index-url", "{index}", "-d", "{got}", "palyra-probe"), _BY),
    Trial("npm_config_cafile", "npm", ("ping", "--fetch-retries=0", "--registry", "{npm}"), _BY),
    Trial("CARGO_HTTP_CAINFO", "cargo", ("search", "hello", "--index", "{cargo}"), _BY),
    Trial("AWS_CA_BUNDLE", "AWS CLI", (*_AWS, "--region", "eu-west-1"), _BY),
)


def test_every_row_is_tried_with_the_first_of_its_readers() -> None:
    readers = {row.name: row.readers[0] for row in TABLE}
    assert {trial.row: trial.client for trial in TRIALS} == readers
    assert set(CLIENTS) == set(readers.values())


@pytest.mark.parametrize("client", CLIENTS)
async def test_each_variable_alone_lets_its_client_through(
    place: Place, tmp_path: Path, client: str
) -> None:
    about = CLIENTS[client]
    program = about.found()
    if client == "git":
        await made_repository(place, *program)
    await place.up()
    puppet = await place.puppet(about.profile)
    printed = await _printed(place, tmp_path, puppet.proxy_url)
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **dict(about.settings)}
    outcomes: dict[str, tuple[bool, bool]] = {}
    said = ""
    trials = [trial for trial in TRIALS if trial.client == client]
    for trial in trials:
        command = [*program, *(word.format(**_places(place)) for word in trial.command)]
        needs = {name: printed[name] for name in trial.needs}
        without = {**base, **needs, **dict(trial.around)}
        done = [
            await place.programs.finished(*command, environment=environment)
            for environment in ({**without, trial.row: printed[trial.row]}, without)
        ]
        outcomes[trial.row] = (done[0].code == 0, done[1].code == 0)
        said += f"{trial.row}: {done[0].err}\n"
    assert outcomes == {trial.row: (True, False) for trial in trials}, said


def _places(place: Place) -> dict[str, str]:
    url = place.upstreams.url
    return {
        "url": url(API, "/open/thing"),
        "plain": f"http://{API}:{place.upstreams.port}/open/thing",
        "api": url(API, "/open"),
        "repository": url(GIT, REPOSITORY),
        "index": url(PACKAGES, "/simple/"),
        "got": str(place.directory / "got"),
        "npm": url(PACKAGES, "/npm/"),
        "cargo": "sparse+" + url(PACKAGES, "/cargo/"),
    }


async def test_a_shell_that_evaluates_it_reaches_what_the_profile_allows(
    place: Place, tmp_path: Path, curl: str
) -> None:
    await place.up()
    puppet = await place.puppet("api")
    file = _credential(tmp_path, puppet.proxy_url)
    allowed = place.upstreams.url(API, "/open/thing")
    refused = place.upstreams.url(PACKAGES, "/simple/")
    script = (
        f'eval "$("$1" env --shell sh --credentials-file "$2")" &&'
        f' "$3" -sSf {allowed} && ! "$3" -sSf {refused}'
    )
    environment = {**place.worker_environment, "PALYRA_HOME": str(place.home)}
    done = await place.programs.finished(
        "sh",
        *("-c", script, "sh", Path(sys.executable).parent / "palyra-egress", file, curl),
        environment=environment,
    )
    assert done.code == 0, done.err
    assert '"path": "/open/thing"' in done.out


async def _printed(place: Place, folder: Path, proxy_url: str) -> dict[str, str]:
    file = _credential(folder, proxy_url)
    done = await place.egress("env", "--shell", "json", "--credentials-file", file)
    assert done.code == 0, done.err
    found: dict[str, str] = json.loads(done.out)["set"]
    return found


def _credential(folder: Path, proxy_url: str) -> Path:
    parts = urlsplit(proxy_url)
    file = folder / "credential"
    file.write_text(f"{parts.username}:{parts.password}\n")
    file.chmod(0o600)
    return file
