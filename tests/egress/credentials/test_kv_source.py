"""Mirror of credentials/kv_source.py: what is known, for how long, and when it is asked for."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from palyra_egress.credentials.kv_settings import KvSettings
from palyra_egress.credentials.kv_source import KvSource
from tests.egress.credentials.moving_time import MovingTime
from tests.fakes.kv_server import TOKEN, KvServer, kv_server, status, text

NAME = "secret/team/github#token"


@dataclass
class World:
    """A server, a clock, and a source between them."""

    server: KvServer
    time: MovingTime
    settings: KvSettings
    source: KvSource

    def value(self, name: str = NAME) -> str | None:
        held = self.source.findings().held.get(name)
        return None if held is None else held.value.reveal()

    def problem(self, name: str = NAME) -> str | None:
        return self.source.findings().problems.get(name)

    async def at(self, ms: int) -> int | None:
        self.time.ms = ms
        return await self.source.step()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    async with kv_server() as server:
        server.secrets = {"secret/team/github": {"token": "first-secret", "user": "somebody"}}
        settings = KvSettings(
            server.url, tmp_path / "token", None, None, frozenset({"kv1"}), 2.0, 60_000, 300_000
        )
        time = MovingTime()
        source = KvSource(settings, time.monotonic_ms, time.unix_ms)
        source.want(frozenset({NAME}))
        yield World(server, time, settings, source)
        await source.close()


async def test_nothing_is_known_and_nothing_told_before_the_first_question(world: World) -> None:
    assert world.value() is None and world.problem() is None
    assert await world.at(0) == 60_000
    assert world.value() == "first-secret" and world.problem() is None


async def test_a_rotated_value_is_learnt_when_it_is_due_and_not_before(world: World) -> None:
    await world.at(0)
    world.server.secrets["secret/team/github"]["token"] = "second-secret"
    await world.at(59_999)
    assert (world.value(), len(world.server.asked)) == ("first-secret", 1)
    await world.at(60_000)
    assert (world.value(), len(world.server.asked)) == ("second-secret", 2)


async def test_one_question_serves_every_field_of_a_secret(world: World) -> None:
    world.source.want(frozenset({NAME, "secret/team/github#user"}))
    await world.at(0)
    assert world.value("secret/team/github#user") == "somebody"
    assert len(world.server.asked) == 1


async def test_a_failure_keeps_the_value_until_it_is_too_old(world: World) -> None:
    await world.at(0)
    world.server.fault = status(503)
    await world.at(60_000)
    assert world.value() == "first-secret"
    await world.at(299_999)
    assert world.value() == "first-secret"
    world.time.ms = 300_000  # nobody has to ask: it is gone by itself
    assert world.value() is None
    assert world.problem() == "the server is sealed or down (503)"
    world.server.fault = None
    await world.at(400_000)
    assert world.value() == "first-secret"


async def test_the_pauses_grow_and_never_beyond_the_refresh(world: World) -> None:
    world.server.fault = status(500)
    due, pauses = 0, []
    for _ in range(9):
        found = await world.at(due)
        assert found is not None
        pauses.append(found - due)
        due = found
    assert pauses == [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    world.server.fault = None
    assert await world.at(due) == due + 60_000


async def test_a_secret_that_was_deleted_is_gone_at_once(world: World) -> None:
    await world.at(0)
    world.server.secrets.clear()
    await world.at(60_000)
    assert world.value() is None
    assert world.problem() == "the server has no such secret, or it was deleted there"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"user": "x"}, "the secret has no text field token"),
        ({"token": 12_345_678}, "the secret has no text field token"),
        ({"token": "line\r\nX-Evil: SECRET"}, "it holds a line end"),
        ({"token": "short"}, "it is shorter than 8 characters"),
        ({"token": "lone-\ud800-SECRET"}, "non-ASCII"),
    ],
)
async def test_a_value_that_cannot_be_used_takes_the_old_one_away(
    world: World, fields: dict[str, object], why: str
) -> None:
    await world.at(0)
    world.server.secrets["secret/team/github"] = fields
    await world.at(60_000)
    problem = world.problem()
    assert world.value() is None and problem is not None
    assert why in problem and "SECRET" not in problem


async def test_a_lease_that_ends_takes_its_value_with_it(world: World) -> None:
    name = "kv1/old#token"
    world.server.secrets["kv1/old"] = {"token": "leased-secret"}
    world.server.lease_duration_s = 10
    world.source.want(frozenset({name}))
    assert await world.at(0) == 5_000
    world.server.fault = text("not json")
    await world.at(5_000)
    world.time.ms = 9_999
    assert world.value(name) == "leased-secret"
    world.time.ms = 10_000
    assert world.value(name) is None


async def test_a_very_short_lease_is_no_flood_of_questions(world: World) -> None:
    world.server.secrets["kv1/old"] = {"token": "leased-secret"}
    world.server.lease_duration_s = 1
    world.source.want(frozenset({"kv1/old#token"}))
    due, questions = 0, 0
    while due < 10_000:
        found = await world.at(due)
        assert found is not None
        due, questions = found, questions + 1
    assert questions <= 20


async def test_names_that_are_no_longer_wanted_are_forgotten(world: World) -> None:
    await world.at(0)
    world.source.want(frozenset())
    assert world.source.findings() == replace(world.source.findings(), held={}, problems={})
    assert await world.at(60_000) is None
    assert len(world.server.asked) == 1


async def test_a_further_field_is_asked_for_at_once(world: World) -> None:
    await world.at(0)
    world.source.want(frozenset({NAME, "secret/team/github#user"}))
    await world.at(1)
    assert world.value("secret/team/github#user") == "somebody"
    assert world.value() == "first-secret"


async def test_names_wanted_while_it_waits_wake_it_up(world: World) -> None:
    told = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        keeping = group.create_task(world.source.keep(told.set))
        await told.wait()
        assert world.value() == "first-secret"
        told.clear()
        world.server.secrets["secret/other"] = {"token": "other-secret"}
        world.source.want(frozenset({NAME, "secret/other#token"}))
        await told.wait()
        assert world.value("secret/other#token") == "other-secret"
        keeping.cancel()
