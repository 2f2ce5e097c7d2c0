"""A token from the terminal to the upstream, with real programs: `vault` keeps it, the policy binds
it, `run` starts curl, the upstream gets it, and nothing of the worker's ever holds it."""

import asyncio
import os
from pathlib import Path

import pytest

from palyra_egress.installation import EgressNote
from tests.e2e.place import BIN, EGRESS, POLICY, Place
from tests.e2e.upstreams import API, GIT, PACKAGES
from tests.fakes.kv_server import TOKEN as KV_TOKEN
from tests.fakes.kv_server import kv_server

FIRST, SECOND = "ghp_first-SECRET-0123", "ghp_second-SECRET-4567"
KV_SECRET, MOUNTED = "kv-SECRET-0123456789", "mounted-SECRET-0123456789"
BOUND = POLICY.replace(
    "    methods: [GET]\n    paths: [/open/**]\n",
    "    methods: [GET]\n    paths: [/open/**]\n    credentials:\n      - {{header: authorization, "
    'secret: "vault:global/token", format: "Bearer {{secret}}"}}\n',
)
EVERYWHERE = BOUND.replace(
    "    methods: [GET, POST]\n",
    "    methods: [GET, POST]\n    credentials:\n"
    '      - {{header: x-key, secret: "kv:secret/team#token"}}\n',
).replace(
    "    methods: [GET, HEAD]\n",
    "    methods: [GET, HEAD]\n    credentials:\n"
    '      - {{header: x-key, secret: "file:packages"}}\n',
)


async def set_token(place: Place, value: str) -> None:
    """`vault set` with the value on standard input, as a person pipes it."""
    program = await place.programs.start(
        *(EGRESS, "vault", "set", "global/token"), environment=place.environment, with_input=True
    )
    program.write(value + "\n")
    program.close_input()
    assert await program.ended() == 0, program.err.text
    assert "SECRET" not in program.out.text + program.err.text


def written_by(directory: Path) -> bytes:
    """All that the installation wrote to disk."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_a_token_that_was_set_reaches_the_upstream_and_never_the_worker(
    place: Place, curl: str
) -> None:
    place.policy_file.write_text(BOUND.format(port=place.upstreams.port))
    assert (await place.egress("vault", "init")).code == 0
    await set_token(place, FIRST)
    running = await place.up()
    url = place.upstreams.url(API, "/open/thing")
    everything = f"env; cat /proc/self/environ; {curl} -sS --verbose {url}"
    done = await place.run_to_its_end("api", "sh", "-c", everything)
    assert done.code == 0, done.err
    (seen,) = place.upstreams.of(API)
    assert seen.headers["authorization"] == f"Bearer {FIRST}"
    assert "SECRET" not in done.out + done.err
    assert "palyra: this profile binds secrets; without --isolate" in done.err

    await set_token(place, SECOND)  # the running proxy follows it

    async def ask() -> str:
        assert (await place.run_to_its_end("api", curl, "-sS", url)).code == 0
        return place.upstreams.of(API)[-1].headers["authorization"]

    async with asyncio.timeout(60):
        while await ask() != f"Bearer {SECOND}":
            pass

    assert (await place.egress("vault", "remove", "global/token")).code == 0
    log = running.program.err
    async with asyncio.timeout(60):
        await log.holds("vault:global/token is not available")
    count = len(place.upstreams.of(API))
    done = await place.run_to_its_end("api", curl, "-sS", "--write-out", "%{http_code}", url)
    assert done.out.endswith("503") and "egress.credential_unavailable" in done.out + done.err
    assert len(place.upstreams.of(API)) == count
    key = (place.home / "egress" / "master.key").read_text().strip()
    assert b"SECRET" not in written_by(place.home)
    assert "SECRET" not in running.program.out.text + log.text and key not in log.text


async def test_mounted_files_and_a_kv_server_serve_a_running_installation(
    place: Place, curl: str, tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for path, content in ((mounted / "packages", MOUNTED), (tmp_path / "kv-token", KV_TOKEN)):
        path.write_text(content)
        path.chmod(0o600)
    place.policy_file.write_text(EVERYWHERE.format(port=place.upstreams.port))
    assert (await place.egress("vault", "init")).code == 0
    async with kv_server(place.ca.server_context("127.0.0.1")) as kv:
        kv.secrets = {"secret/team": {"token": KV_SECRET}}
        program = await place.programs.start(
            *place.up_command(),
            *("--secrets-dir", mounted, "--kv-url", kv.url, "--kv-ca", place.ca.ca_file),
            *("--kv-token-file", tmp_path / "kv-token"),
            environment=place.environment,
        )
        await program.says("Ctrl-C stops everything in order.")
        async with asyncio.timeout(60):
            await kv.arrived.wait()
        note = EgressNote.read(place.home / "egress.json")
        assert [*note.secret_directories] == [str(mounted)]  # what isolated workers do not see
        for profile, host, secret in (
            ("git", GIT, KV_SECRET),
            ("packages", PACKAGES, MOUNTED),
        ):
            url = place.upstreams.url(host, "/simple/")
            await place.run_to_its_end(profile, curl, "-sS", url)
            assert place.upstreams.of(host)[-1].headers["x-key"] == secret
    assert b"SECRET" not in written_by(place.home)


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ("vault:global/token", "there is no vault yet; make one with `palyra-egress vault init`"),
        (
            "file:token",
            "the source `file` is not configured; name its directory with --secrets-dir",
        ),
        ("env:TOKEN", "the source `env` is not configured; list the variable with --secret-env"),
        ("kv:secret/team#token", "name the server with --kv-url and --kv-token-file"),
    ],
)
async def test_up_says_which_line_names_a_source_that_is_not_set_up(
    place: Place, secret: str, why: str
) -> None:
    policy = BOUND.replace("vault:global/token", secret).format(port=place.upstreams.port)
    place.policy_file.write_text(policy)
    program = await place.start_up()
    assert await program.ended() == 2
    said = program.err.text
    assert f"{place.policy_file}:4: the rule api binds authorization from {secret}: " in said
    assert why in said
    assert os.fspath(BIN) not in said
