"""Mirror of credentials/sources.py and policy_gate.py: all sources as one, while they change."""

import asyncio
import logging
import os
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from palyra_egress.credentials.binding import SecretLookup, SecretRef, SecretSource
from palyra_egress.credentials.kv_settings import KvSettings
from palyra_egress.credentials.policy_gate import SecretGate
from palyra_egress.credentials.settings import SecretSettings
from palyra_egress.credentials.sources import LOCAL_MAX_AGE_MS, SecretSources
from palyra_egress.credentials.vault_file import VaultFile
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.live import EveryGate, PolicyFile
from palyra_egress.policy.load import load_policy
from tests.egress.credentials.moving_time import MovingTime
from tests.fakes.kv_server import TOKEN, KvServer, kv_server, silent, status
from tests.fakes.until import until

VAULT = SecretRef(SecretSource.VAULT, "global/token")
FILE = SecretRef(SecretSource.FILE, "token")
ENV = SecretRef(SecretSource.ENV, "API_TOKEN")
KV = SecretRef(SecretSource.KV, "secret/team#token")
ALL = (VAULT, FILE, ENV, KV)


def policy_text(*refs: SecretRef) -> str:
    rules = "".join(
        f"  - id: r{i}\n    hosts: [h{i}.example]\n"
        f"    credentials: [{{header: authorization, secret: '{ref}'}}]\n"
        for i, ref in enumerate(refs)
    )
    ids = ", ".join(f"r{i}" for i in range(len(refs)))
    return f"version: 1\nname: test\nrules:\n{rules}profiles: {{p: [{ids}]}}\n"


def policy(*refs: SecretRef) -> CompiledPolicy:
    return load_policy(policy_text(*refs).encode(), "test.yaml")


@dataclass
class World:
    """One installation with every source."""

    directory: Path
    server: KvServer
    time: MovingTime
    settings: SecretSettings
    environment: dict[str, str]
    sources: SecretSources

    @property
    def vault(self) -> VaultFile:
        return VaultFile.in_directory(self.directory / "state", environment={})

    def set_vault(self, value: str) -> None:
        self.vault.change(lambda it: it.vault.with_record(VAULT.name, value, it.key, 1))

    def set_file(self, value: str, mode: int = 0o600) -> None:
        draft = self.directory / "draft"
        draft.write_text(value)
        draft.chmod(mode)
        draft.replace(self.directory / "secrets" / "token")

    def value(self, ref: SecretRef) -> str | None:
        found = self.sources.get(ref)
        return None if found is None else found.reveal()

    def remove_file(self) -> None:
        (self.directory / "secrets" / "token").unlink()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "kv.token").write_text(TOKEN)
    (tmp_path / "kv.token").chmod(0o600)
    async with kv_server() as server:
        server.secrets = {"secret/team": {"token": "kv-SECRET"}}
        time = MovingTime()
        environment = {"API_TOKEN": "env-SECRET", "OTHER": "other-SECRET"}
        settings = SecretSettings(
            directory=tmp_path / "secrets",
            environment_names=frozenset({"API_TOKEN", "UNSET"}),
            kv=KvSettings(server.url, tmp_path / "kv.token"),
        )
        sources = SecretSources(
            tmp_path / "state", settings, time.monotonic_ms, time.unix_ms, environment
        )
        world = World(tmp_path, server, time, settings, environment, sources)
        world.vault.create()
        world.set_vault("vault-SECRET")
        world.set_file("file-SECRET")
        yield world
        await sources.close()


async def test_every_source_gives_its_secret(world: World) -> None:
    await world.sources.follow(policy(*ALL))
    assert [world.value(ref) for ref in ALL] == [
        "vault-SECRET",
        "file-SECRET",
        "env-SECRET",
        "kv-SECRET",
    ]
    assert world.sources.allowed == frozenset(SecretSource) and not world.sources.problems
    lookup: SecretLookup = world.sources
    assert {value.reveal() for value in lookup.values()} == {
        "vault-SECRET",
        "file-SECRET",
        "env-SECRET",
        "kv-SECRET",
    }


async def test_only_what_the_policy_names_is_held(world: World) -> None:
    await world.sources.follow(policy(FILE))
    assert [world.value(ref) for ref in ALL] == [None, "file-SECRET", None, None]
    assert len(list(world.sources.values())) == 1 and world.server.asked == []
    await world.sources.follow(policy(VAULT))
    assert [world.value(ref) for ref in ALL] == ["vault-SECRET", None, None, None]


async def test_at_the_start_files_are_read_and_the_server_is_asked_later(world: World) -> None:
    world.sources.want(policy(*ALL))
    assert [world.value(ref) for ref in ALL[:3]] == ["vault-SECRET", "file-SECRET", "env-SECRET"]
    assert world.value(KV) is None and world.server.asked == []


async def test_a_rotated_secret_is_learnt_and_counted(world: World) -> None:
    await world.sources.follow(policy(*ALL))
    version = world.sources.version
    await world.sources.refresh()
    assert world.sources.version == version
    world.set_file("rotated-SECRET")
    world.set_vault("rotated-SECRET")
    await world.sources.refresh()
    assert world.value(FILE) == world.value(VAULT) == "rotated-SECRET"
    assert world.sources.version == version + 1
    assert len(list(world.sources.values())) == 3  # two hold the same


async def test_a_secret_that_goes_is_gone_told_once_and_may_come_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.sources.follow(policy(*ALL))
    world.remove_file()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            await world.sources.refresh()
        assert world.value(FILE) is None and set(world.sources.problems) == {FILE}
        world.set_file("back-SECRET")
        await world.sources.refresh()
    assert world.value(FILE) == "back-SECRET"
    assert [record.getMessage() for record in caplog.records] == [
        f"file:token is not available: {world.directory}/secrets/token:"
        " cannot be read: No such file or directory",
        "file:token is available again",
    ]


async def test_a_variable_is_read_once_and_only_if_it_is_listed(world: World) -> None:
    world.environment["API_TOKEN"] = "changed-SECRET"
    other, unset = SecretRef(SecretSource.ENV, "OTHER"), SecretRef(SecretSource.ENV, "UNSET")
    await world.sources.follow(policy(ENV, other, unset))
    assert world.value(ENV) == "env-SECRET" and world.value(other) is None
    assert world.sources.problems == {
        other: "the variable is not listed",
        unset: "the variable is not set",
    }


async def test_a_variable_that_holds_no_ascii_is_refused_and_not_mended(tmp_path: Path) -> None:
    settings = SecretSettings(environment_names=frozenset({"API_TOKEN"}))
    environment = {"API_TOKEN": os.fsdecode(b"token-\xff-SECRET")}
    sources = SecretSources(tmp_path, settings, lambda: 0, lambda: 0, environment)
    await sources.follow(policy(ENV))
    assert sources.get(ENV) is None and "non-ASCII" in sources.problems[ENV]


async def test_what_was_not_confirmed_for_long_is_gone_by_itself(world: World) -> None:
    await world.sources.follow(policy(*ALL))
    world.time.ms = LOCAL_MAX_AGE_MS - 1
    assert None not in [world.value(ref) for ref in ALL]
    world.time.ms = LOCAL_MAX_AGE_MS
    assert [world.value(ref) for ref in ALL] == [None, None, "env-SECRET", "kv-SECRET"]
    world.time.ms = 300_000
    assert world.value(KV) is None


async def test_a_server_that_is_down_holds_up_nobody(world: World) -> None:
    world.server.fault = status(503)
    await world.sources.follow(policy(*ALL))
    assert [world.value(ref) for ref in ALL] == ["vault-SECRET", "file-SECRET", "env-SECRET", None]
    assert world.sources.problems == {KV: "the server is sealed or down (503)"}


async def test_a_server_that_is_silent_holds_back_no_policy(world: World) -> None:
    world.server.fault = silent
    await world.sources.follow(policy(FILE, KV), wait_s=0.05)
    assert (world.value(FILE), world.value(KV)) == ("file-SECRET", None)
    world.server.fault = None
    await world.sources.follow(policy(FILE, KV))  # what was not answered is still due
    assert world.value(KV) == "kv-SECRET"


async def test_kept_sources_follow_their_files_and_their_server(world: World) -> None:
    world.sources.want(policy(*ALL))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        keeping = group.create_task(world.sources.keep())
        await until("the server's secret is there", lambda: world.value(KV) == "kv-SECRET")
        world.set_file("rotated-SECRET")
        await until("the new file is read", lambda: world.value(FILE) == "rotated-SECRET")
        keeping.cancel()


def _gate(world: World, settings: SecretSettings) -> SecretGate:
    return SecretGate(world.directory / "state", settings, {})


def _load(world: World, gate: SecretGate, *refs: SecretRef) -> PolicyFile:
    path = world.directory / "policy.yaml"
    path.write_text(policy_text(*refs))
    file = PolicyFile(path, EveryGate(gate))
    file.poll()
    return file


async def test_a_policy_is_good_where_every_source_is_configured(world: World) -> None:
    file = _load(world, _gate(world, world.settings), *ALL)
    assert file.problem is None and file.policy is not None


async def test_a_policy_that_names_what_is_not_configured_is_refused_by_line(world: World) -> None:
    file = _load(world, _gate(world, SecretSettings()), *ALL)
    assert file.policy is None
    place = world.directory / "policy.yaml"
    assert (file.problem or "").splitlines() == [
        f"{place}:7: the rule r1 binds authorization from file:token: the source `file` is not"
        " configured; name its directory with --secrets-dir",
        f"{place}:10: the rule r2 binds authorization from env:API_TOKEN: the source `env` is not"
        " configured; list the variable with --secret-env",
        f"{place}:13: the rule r3 binds authorization from kv:secret/team#token: the source `kv`"
        " is not configured; name the server with --kv-url and --kv-token-file",
    ]


async def test_a_variable_that_is_not_listed_refuses_the_policy(world: World) -> None:
    file = _load(world, _gate(world, world.settings), SecretRef(SecretSource.ENV, "OTHER"))
    assert "env:OTHER: the variable is not listed; list the variable with" in (file.problem or "")


async def test_a_missing_vault_refuses_the_policy_until_it_is_made(world: World) -> None:
    os.unlink(world.vault.path)  # noqa: PTH108
    file = _load(world, _gate(world, world.settings), VAULT, FILE)
    assert file.policy is None and "vault.json: there is no vault yet; make one" in (
        file.problem or ""
    )
    world.vault.create()
    assert file.poll() is not None and file.problem is None


async def test_a_policy_without_vault_secrets_needs_no_vault(world: World) -> None:
    os.unlink(world.vault.path)  # noqa: PTH108
    assert _load(world, _gate(world, world.settings), FILE, ENV, KV).policy is not None


async def test_no_secret_is_in_any_log_error_or_repr(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Every way in which a source fails, with the secrets in place: nothing shows one."""
    shown: list[str] = []
    caplog.set_level(logging.DEBUG)
    await world.sources.follow(policy(*ALL))

    def look() -> None:
        holders = [world.sources, world.settings, world.vault, *vars(world.sources).values()]
        shown.extend(repr(holder) for holder in holders)
        shown.extend(repr(vars(holder)) for holder in holders if hasattr(holder, "__dict__"))
        shown.extend(world.sources.problems.values())

    look()
    for value, mode in (
        ("open-SECRET", 0o644),
        ("two\nlines-SECRET", 0o600),
        ("é-SECRET-xx", 0o600),
        ("SECRET" * 9_000, 0o600),
    ):
        world.set_file(value, mode)
        await world.sources.refresh()
        look()
    for value in ("two\nlines-SECRET", "SECRET"):
        world.set_vault(value)
        await world.sources.refresh()
        look()
    with open(world.vault.path, "ab") as file:  # noqa: ASYNC230, PTH123
        file.write(b"SECRET")
    await world.sources.refresh()
    look()
    for body in ('{"data": "SECRET', '{"data": {"data": {"token": "SECRET\\n"}, "metadata": {}}}'):
        for code in (200, 403, 500):
            world.server.fault = status(code, body)
            world.time.ms += 60_000
            await world.sources.follow(policy(KV))
            look()
    late = "late-SECRET"
    for attempt in (
        world.vault.read,
        lambda: world.set_vault(late),
        world.vault.rotate_key,
    ):
        try:
            attempt()
        except Exception as error:
            shown.append("".join(traceback.format_exception(error)) + repr(error))
    assert len(shown) > 50
    text = "\n".join(shown) + caplog.text
    assert "SECRET" not in text and TOKEN not in text
    assert world.vault.key_path.read_text().strip() not in text
