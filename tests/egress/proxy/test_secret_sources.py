"""A running proxy with real sources of secrets: what is set, rotated and taken away is what the
upstream gets, and a policy that names what is not there does not come into force."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from palyra_egress.credentials.settings import VAULT_ONLY, SecretSettings
from palyra_egress.credentials.vault_file import VaultFile
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.proxy.egress_proxy import PolicyRefused
from tests.fakes.proxy_harness import Harness, proxy_harness, read_reply
from tests.fakes.until import until
from tests.fakes.upstream import RecordingUpstream, recording_upstream

TOKEN: Final = "vault-token-SECRET-1"
FRESH: Final = "vault-token-SECRET-2"
MOUNTED: Final = "mounted-SECRET-1"


def policy(port: int, *refs: str) -> str:
    """One rule for `api.example`, with a header for each reference."""
    bound = "".join(f"      - {{header: x-key-{i}, secret: '{r}'}}\n" for i, r in enumerate(refs))
    return (
        "version: 1\nname: sources\nrules:\n  - id: api\n    hosts: [api.example]\n"
        f"    ports: [{port}]\n    private: [127.0.0.0/8]\n    credentials:\n{bound}"
        "profiles: {test: [api]}\n"
    )


@dataclass
class World:
    harness: Harness
    upstream: RecordingUpstream
    vault: VaultFile

    async def ask(self) -> str:
        """The status or reason of one request over a tunnel of its own."""
        host = f"api.example:{self.upstream.port}"
        reply, reader, writer = await self.harness.tunnel(host)
        assert reply is not None and reply.status == 200, reply
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = await read_reply(reader)
        assert answer is not None
        return "200" if answer.status == 200 else answer.reason

    def sent(self, name: str) -> list[str]:
        """The values of one header that the upstream got, in order."""
        lines = bytes(self.upstream.received).decode("latin-1").split("\r\n")
        return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name}:")]

    def write_policy(self, *refs: str) -> None:
        file = self.harness.directory / "policy.yaml"
        draft = file.with_suffix(".draft")
        draft.write_text(policy(self.upstream.port, *refs))
        draft.replace(file)

    @property
    def problems(self) -> dict[str, str]:
        return self.harness.proxy.enforcement.problems()


def put(vault: VaultFile, value: str) -> None:
    vault.change(lambda it: it.vault.with_record("global/token", value, it.key, 1))


@asynccontextmanager
async def started(
    directory: Path, *refs: str, settings: SecretSettings = VAULT_ONLY, vault: bool = True
) -> AsyncIterator[World]:
    ca = UpstreamCa.create(directory / "ca")
    sealed = VaultFile.in_directory(directory / "proxy" / "state", environment={})
    if vault:
        sealed.create()
        put(sealed, TOKEN)
    async with (
        recording_upstream(ca.server_context("api.example")) as upstream,
        proxy_harness(
            directory / "proxy",
            policy(upstream.port, *refs),
            "127.0.0.1 api.example\n",
            ca.ca_file,
            secrets=None,
            secret_sources=settings,
        ) as harness,
    ):
        yield World(harness, upstream, sealed)


async def test_the_upstream_gets_what_the_vault_has_now(tmp_path: Path) -> None:
    async with started(tmp_path, "vault:global/token") as world:
        assert await world.ask() == "200"
        put(world.vault, FRESH)
        secrets = world.harness.core.secrets
        await until(
            "the new secret is there",
            lambda: FRESH in {value.reveal() for value in secrets.values()},
        )
        assert await world.ask() == "200"
        assert world.sent("x-key-0") == [TOKEN, FRESH]
        world.vault.rotate_key()
        await secrets.refresh()
        assert await world.ask() == "200" and world.sent("x-key-0")[2] == FRESH


async def test_a_secret_that_is_taken_away_refuses_and_nothing_is_sent(tmp_path: Path) -> None:
    async with started(tmp_path, "vault:global/token") as world:
        world.vault.change(lambda it: it.vault.without_record("global/token"))
        await until("the problem is told", lambda: world.problems["secrets"] != "ok")
        assert await world.ask() == "egress.credential_unavailable"
        assert "has no record global/token" in world.problems["secrets"]
        assert not world.upstream.received


async def test_mounted_files_and_variables_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALYRA_TEST_TOKEN", "variable-SECRET")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "key").write_text(MOUNTED + "\n")
    (tmp_path / "mounted" / "key").chmod(0o400)
    settings = SecretSettings(
        directory=tmp_path / "mounted", environment_names=frozenset({"PALYRA_TEST_TOKEN"})
    )
    refs = ("file:key", "env:PALYRA_TEST_TOKEN")
    async with started(tmp_path, *refs, settings=settings, vault=False) as world:
        assert await world.ask() == "200"
        assert (world.sent("x-key-0"), world.sent("x-key-1")) == ([MOUNTED], ["variable-SECRET"])


async def test_a_policy_that_names_what_is_not_set_up_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match=r"policy.yaml:4: the rule api binds x-key-0 from"):
        async with started(tmp_path, "file:key"):
            pass
    with pytest.raises(PolicyRefused, match="there is no vault yet; make one with"):
        async with started(tmp_path / "second", "vault:global/token", vault=False):
            pass


async def test_a_changed_policy_that_names_what_is_not_set_up_leaves_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(tmp_path, "vault:global/token") as world:
        digest = world.harness.core.service.policy_digest
        world.write_policy("vault:global/token", "env:HOME")
        await until("the problem is told", lambda: world.problems["policy"] != "ok")
        assert "the source `env` is not configured" in world.problems["policy"]
        await until("the log tells", lambda: "the policy in force stays: " in caplog.text)
        assert world.harness.core.service.policy_digest == digest
        assert await world.ask() == "200" and world.sent("x-key-0") == [TOKEN]


async def test_a_changed_policy_has_its_secrets_from_its_first_request(tmp_path: Path) -> None:
    async with started(tmp_path, "vault:global/token") as world:
        world.vault.change(lambda it: it.vault.with_record("a/b", FRESH, it.key, 1))
        digest = world.harness.core.service.policy_digest
        world.write_policy("vault:a/b")
        await until(
            "the policy is another", lambda: world.harness.core.service.policy_digest != digest
        )
        assert await world.ask() == "200" and world.sent("x-key-0") == [FRESH]


async def test_a_vault_that_is_spoilt_while_it_runs_refuses_until_it_is_mended(
    tmp_path: Path,
) -> None:
    async with started(tmp_path, "vault:global/token") as world:
        good = world.vault.path.read_bytes()
        world.vault.path.write_bytes(good[:-30])
        await until("the problem is told", lambda: world.problems["secrets"] != "ok")
        assert await world.ask() == "egress.credential_unavailable"
        world.vault.path.write_bytes(good)
        await until("the problem is over", lambda: world.problems["secrets"] == "ok")
        assert await world.ask() == "200"


async def test_nothing_the_proxy_writes_holds_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with started(tmp_path, "vault:global/token") as world:
        assert await world.ask() == "200"
        world.vault.path.write_bytes(b"spoilt")
        await until("the problem is told", lambda: world.problems["secrets"] != "ok")
        await world.ask()
        shown = [repr(world.problems), repr(world.harness.proxy.enforcement), caplog.text]
    files = [path for path in (tmp_path / "proxy").rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    assert "SECRET" not in "".join(shown) and b"SECRET" not in written
    assert world.vault.key_path.read_text().strip() not in "".join(shown)
