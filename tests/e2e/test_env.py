"""Each variable that `palyra-egress env` prints, alone, with the real client that reads it.

A client runs with one row of the table, and what else it needs to get so far given on its command
line; without the row the same command must fail. `NOT_ALONE` names the rows that are not tried so.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from palyra_fleet.worker.environment import TABLE
from tests.e2e.place import Place
from tests.e2e.upstreams import API, PACKAGES

REQUESTS_BY_PROXY = (
    "import os, requests, sys; s = requests.Session(); s.trust_env = True;"
    " s.proxies = dict(https=os.environ['THE_PROXY']); s.get(sys.argv[1]).raise_for_status()"
)
NODE_CLIENT = Path(__file__).with_name("node_client.mjs")


@dataclass(frozen=True, slots=True)
class Trial:
    """One row and a command that works only with it. `{url}`, `{proxy}`, `{bundle}` are filled."""

    row: str
    program: str
    arguments: tuple[str, ...]


_TRUSTS = ("--cacert", "{bundle}")
_BY = ("--proxy", "{proxy}")
_CURL = ("-sSf", "-o", "/dev/null", "{url}")
TRIALS = (
    Trial("HTTPS_PROXY", "curl", (*_TRUSTS, *_CURL)),
    Trial("https_proxy", "curl", (*_TRUSTS, *_CURL)),
    Trial("ALL_PROXY", "curl", (*_TRUSTS, *_CURL)),
    Trial("all_proxy", "curl", (*_TRUSTS, *_CURL)),
    Trial("SSL_CERT_FILE", "curl", (*_BY, *_CURL)),
    Trial("CURL_CA_BUNDLE", "curl", (*_BY, *_CURL)),
    Trial("REQUESTS_CA_BUNDLE", "python", ("-c", REQUESTS_BY_PROXY, "{url}")),
    Trial("NODE_EXTRA_CA_CERTS", "node", (str(NODE_CLIENT), "{url}")),
)
NOT_ALONE = {
    "HTTP_PROXY": "read by few, as CGI's HTTP_PROXY is an attack; tests/e2e/test_real_clients.py",
    "http_proxy": "plain HTTP, which the policy of these tests does not allow",
    "NO_PROXY": "set and empty: takes an inherited one away",
    "no_proxy": "set and empty: takes an inherited one away",
    "GIT_SSL_CAINFO": "tests/e2e/test_real_clients.py clones with it",
    "PIP_CERT": "tests/e2e/test_real_clients.py downloads with it",
    "AWS_CA_BUNDLE": "its client is no dependency of ours",
    "CARGO_HTTP_CAINFO": "its client is no dependency of ours",
    "npm_config_cafile": "npm needs a registry; node is tried",
    "NODE_USE_ENV_PROXY": "read by Node.js 24 and later",
}


def test_every_row_is_tried_or_said_why_not() -> None:
    tried = {trial.row for trial in TRIALS}
    assert {row.name for row in TABLE} == tried | set(NOT_ALONE)
    assert not tried & set(NOT_ALONE)


async def test_each_variable_alone_lets_its_client_through(
    place: Place, tmp_path: Path, curl: str, node: str
) -> None:
    await place.up()
    puppet = await place.puppet("api")
    found = await _printed(place, tmp_path, puppet.proxy_url)
    programs = {"curl": curl, "node": node, "python": sys.executable}
    outcomes: dict[str, tuple[bool, bool]] = {}
    for trial in TRIALS:
        filled = {
            "url": place.upstreams.url(API, "/open/thing"),
            "proxy": puppet.proxy_url,
            "bundle": found["CURL_CA_BUNDLE"],
        }
        command = [programs[trial.program], *(word.format(**filled) for word in trial.arguments)]
        base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "THE_PROXY": puppet.proxy_url}
        if trial.program == "node":
            base |= {"HTTPS_PROXY": puppet.proxy_url}
        with_it = await place.programs.finished(
            *command, environment={**base, trial.row: found[trial.row]}
        )
        without = await place.programs.finished(*command, environment=base)
        outcomes[trial.row] = (with_it.code == 0, without.code == 0)
    assert outcomes == dict.fromkeys(outcomes, (True, False))
    assert len(outcomes) >= 8


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
