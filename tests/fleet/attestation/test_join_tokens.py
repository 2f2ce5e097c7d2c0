"""Join tokens: one key each, hashed at rest, kept through a restart, taken back."""

import stat
from pathlib import Path

import pytest

from palyra_fleet.attestation.join_tokens import (
    MAX_TOKENS,
    JoinToken,
    JoinTokenBook,
    JoinTokenFileError,
    NewToken,
)
from palyra_fleet.refusals import FleetReason, FleetRefusal, Refusal
from palyra_fleet.wire.join_models import MintJoinToken
from tests.fakes.attestation_material import JoinTokenProver
from tests.fakes.fleet_world import WorkerPen, fleet_world
from tests.fakes.ledger_world import ulid
from tests.fleet.attestation.test_attestor_contract import registration, world_of

W1 = ulid(1)
K1, K2 = "1" * 64, "2" * 64
RACES = 200


def minted(book: JoinTokenBook, now: int = 1_000, **changes: object) -> str:
    asked = NewToken(ulid(7), "dev-1", "alice", ttl_ms=600, session_ms=5_000)
    made = book.mint(asked, now)
    assert not isinstance(made, Refusal)
    return made[0]


def test_a_token_is_for_one_key_for_its_time(tmp_path: Path) -> None:
    book = JoinTokenBook.open(tmp_path / "tokens")
    text = minted(book)
    assert book.find("x" * 43, K1, "register", 1_000) is None
    assert book.find(text, K1, "another purpose", 1_000) is None
    assert book.find(text, K1, "register", 1_600) is None  # late
    assert book.use(text, K1, "register", 1_599)
    assert not book.use(text, K2, "register", 1_599)
    assert book.use(text, K1, "register", 6_598)  # the same key, for as long as its session
    assert not book.use(text, K1, "register", 6_599)


def test_what_was_used_or_revoked_stays_so_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    book = JoinTokenBook.open(file)
    used, taken = minted(book), minted(book)
    assert book.use(used, K1, "register", 1_001)
    (gone, _) = book.all()
    again = JoinTokenBook.open(file)
    assert again.find(used, K2, "register", 1_001) is None
    assert again.find(taken, K2, "register", 1_001) is not None
    assert again.revoke(gone.token_id) is not None
    assert again.revoke(ulid(99)) is None
    assert [token.revoked for token in JoinTokenBook.open(file).all()].count(True) == 1


def test_no_token_is_in_the_file_or_in_a_repr(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    book = JoinTokenBook.open(file)
    text = minted(book)
    assert text not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert text not in repr(book)
    (kept,) = book.all()
    assert kept.token_sha256 not in repr(kept)
    assert kept.token_sha256 in file.read_text()


DAMAGE = [
    (lambda text: text[:-4], "the file is not as this program writes it"),
    (lambda text: text.replace('"version": 1', '"version": 2'), "version is not as"),
    (lambda text: text.replace('"revoked"', '"more"'), "tokens.0.revoked|tokens.0.more"),
    (lambda text: text.replace(": false", ': "no"'), "tokens.0.revoked is not as"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_a_damaged_file_stops_the_start(damage: object, said: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    minted(JoinTokenBook.open(file))
    file.write_text(damage(file.read_text()))  # type: ignore[operator]
    with pytest.raises(JoinTokenFileError, match=said):
        JoinTokenBook.open(file)


def test_a_file_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    minted(JoinTokenBook.open(file))
    file.chmod(0o640)
    with pytest.raises(JoinTokenFileError, match="too open"):
        JoinTokenBook.open(file)


def test_so_many_tokens_are_open_and_no_more_and_ended_ones_make_room() -> None:
    one = JoinToken(
        token_id=ulid(1),
        token_sha256="0" * 64,
        purpose="register",
        identity="dev",
        minted_by="alice",
        minted_at_unix_ms=0,
        expires_at_unix_ms=2_000,
        session_ms=1,
    )
    many = tuple(one.model_copy(update={"token_sha256": f"{n:064x}"}) for n in range(MAX_TOKENS))
    book = JoinTokenBook(None, many)
    assert isinstance(book.mint(NewToken(ulid(7), "d", "a", 600), 1_999), Refusal)
    assert not isinstance(book.mint(NewToken(ulid(7), "d", "a", 600), 2_000), Refusal)
    assert len(book.all()) == 1


def test_of_64_keys_that_race_for_one_token_one_wins_in_every_round(tmp_path: Path) -> None:
    book = JoinTokenBook(None)
    for turn in range(RACES):
        text = minted(book, now=turn * 10_000)
        keys = [f"{turn * 64 + n:064x}" for n in range(64)]
        assert sum(book.use(text, key, "register", turn * 10_000) for key in keys) == 1


async def test_an_operator_mints_lists_and_takes_back_and_the_log_says_so(tmp_path: Path) -> None:
    prover = JoinTokenProver()
    async with world_of(prover, tmp_path) as world:
        (view,) = await world.service.join_tokens()
        assert (view.identity, view.minted_by, view.used_at_unix_ms) == ("dev-1", "alice", None)
        await world.service.revoke_join_token("bob", view.token_id, "a mistake")
        with pytest.raises(FleetRefusal) as caught:
            await world.service.register(await registration(prover, world, WorkerPen(W1)))
        assert caught.value.reason is FleetReason.EVIDENCE_REFUSED
        with pytest.raises(FleetRefusal, match="there is no join token"):
            await world.service.revoke_join_token("bob", ulid(99), "no")
        said = [event for event in await world.service.events(0, 100) if "join" in event.reason]
        assert [event.reason for event in said] == [
            "fleet.join_token_minted",
            "fleet.join_token_revoked",
        ]
        assert prover.text not in repr(said)


async def test_a_fleet_without_the_attestor_mints_nothing(tmp_path: Path) -> None:
    async with fleet_world(state_dir=tmp_path) as world:
        with pytest.raises(FleetRefusal, match="this fleet takes no join tokens"):
            await world.service.mint_join_token("a", MintJoinToken(identity="d", reason="r"))
        assert await world.service.join_tokens() == ()


async def test_a_token_ends_the_workers_attestation_with_its_session(tmp_path: Path) -> None:
    prover = JoinTokenProver()
    async with world_of(prover, tmp_path) as world:
        asked = MintJoinToken(identity="dev-1", session_ms=120_000, reason="short")
        prover.text = (await world.service.mint_join_token("alice", asked)).token
        worker = WorkerPen(W1)
        first = await world.service.register(await registration(prover, world, worker))
        assert first.attested_until_unix_ms == world.clock() + 120_000
        world.clock.forward(100_000)
        again = await world.service.register(await registration(prover, world, worker))
        assert again.attested_until_unix_ms == world.clock() + 20_000
        world.clock.forward(20_000)
        with pytest.raises(FleetRefusal, match="the join token is"):
            await world.service.register(await registration(prover, world, worker))


async def test_a_worker_that_is_let_in_has_the_labels_of_its_token(tmp_path: Path) -> None:
    prover = JoinTokenProver()
    async with world_of(prover, tmp_path) as world:
        asked = MintJoinToken(identity="dev-1", labels={"pool": "a"}, reason="pooled")
        minted = await world.service.mint_join_token("alice", asked)
        assert minted.join_token.labels == {"pool": "a"}
        prover.text = minted.token
        await world.service.register(await registration(prover, world, WorkerPen(W1)))
        assert (await world.service.worker(W1)).labels == {"pool": "a"}
        said = [event for event in await world.service.events(0, 100) if "labels" in event.detail]
        assert [event.detail["labels"] for event in said if event.detail["labels"]] == [
            "pool=a",
            "pool=a",
        ]
        kept = JoinTokenBook.open(tmp_path / "join-tokens.json").all()
        assert [dict(one.labels) for one in kept if one.labels] == [{"pool": "a"}]
