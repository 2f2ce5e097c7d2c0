"""The table of open connections: whom a sweep cuts, and whom it leaves alone."""

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from palyra_egress.proxy.bindings import Ended
from palyra_egress.proxy.channels.channel import Channel, ChannelKind
from palyra_egress.proxy.connections import PATIENCE_MS, STRANGERS_PART, ConnectionTable
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester
from tests.fakes.until import until


@dataclass(eq=False)
class Line:
    """A connection that notes how it was cut; `steps` is shared by those of a test."""

    requester: Requester | None = None
    source: str = "192.0.2.1"
    channel: Channel | None = None
    cuts: list[Reason] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    unwound: asyncio.Event = field(default_factory=asyncio.Event)

    def make_room(self) -> None:
        self.steps.append("make room")

    def stop_sending(self, reason: Reason) -> None:
        self.cuts.append(reason)
        self.steps.append("stop sending")

    def hang_up(self) -> None:
        self.steps.append("hang up")

    def keep_quiet(self) -> None:
        self.steps.append("keep quiet")

    def review(self) -> None:
        self.steps.append("review")

    def unwind(self) -> None:
        self.steps.append("unwind")
        self.unwound.set()


def line(table: ConnectionTable, worker: str | None, lease: str = "lease") -> Line:
    made = Line(Requester(worker, lease, "p") if worker else None)
    assert table.admit(made, 0)
    if worker:
        assert table.identify(made, worker)
    return made


async def test_only_the_workers_connections_are_cut():
    table = ConnectionTable()
    mine, also_mine, other, nobody = (line(table, w) for w in ("a", "a", "b", None))
    assert table.cut(Ended(worker_ids=frozenset({"a"}))) == 2
    assert [bool(c.cuts) for c in (mine, also_mine, other, nobody)] == [True, True, False, False]


async def test_a_lease_that_ended_cuts_its_connections_and_not_the_workers_others():
    table = ConnectionTable()
    old, new = line(table, "a", "old"), line(table, "a", "new")
    assert table.cut(Ended(lease_ids=frozenset({"old"}))) == 1
    assert (bool(old.cuts), bool(new.cuts)) == (True, False)


async def test_the_speaker_is_spared_so_that_it_hears_the_answer():
    table = ConnectionTable()
    speaker, other = line(table, "a"), line(table, "a")
    assert table.cut(Ended(worker_ids=frozenset({"a"})), spare=speaker) == 1
    assert (bool(speaker.cuts), bool(other.cuts)) == (False, True)


def test_cutting_nobody_is_nothing():
    table = ConnectionTable()
    line(table, "a")
    assert table.cut(Ended()) == 0
    assert table.cut(Ended(worker_ids=frozenset({"unknown"}))) == 0


async def test_everything_is_cut_known_or_not():
    table = ConnectionTable()
    known, unknown = line(table, "a"), line(table, None)
    table.cut_everything(Reason.STOPPING)
    assert known.cuts == unknown.cuts == [Reason.STOPPING]


async def test_nothing_leaves_any_more_before_a_worker_is_hung_up_on_and_unwinding_takes_turns():
    table, steps = ConnectionTable(), list[str]()
    lines = [line(table, "a") for _ in range(3)]
    for each in lines:
        each.steps = steps
    others: list[str] = []
    assert table.cut(Ended(worker_ids=frozenset({"a"}))) == 3
    assert steps == ["stop sending"] * 3 + ["hang up"] * 3 + ["keep quiet"] * 3
    while not all(each.unwound.is_set() for each in lines):
        others.append(f"{steps.count('unwind')} unwound")
        await asyncio.sleep(0)
    assert steps[9:] == ["unwind"] * 3
    assert others == ["0 unwound", "1 unwound", "2 unwound"]


@pytest.mark.parametrize("step", ["stop_sending", "hang_up", "keep_quiet", "unwind"])
async def test_one_that_cannot_be_cut_keeps_no_other_from_it(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = ConnectionTable()
    lines = [line(table, "a") for _ in range(5)]
    for broken in lines[::2]:
        monkeypatch.setattr(broken, step, _fail)
    assert table.cut(Ended(worker_ids=frozenset({"a"}))) == 5
    for whole in lines[1::2]:
        await whole.unwound.wait()
        assert whole.steps == ["stop sending", "hang up", "keep quiet", "unwind"]
    if step != "unwind":
        for broken in lines[::2]:
            await broken.unwound.wait()
    shown: list[str] = []

    def all_told() -> bool:
        shown[:] = [logging.Formatter().format(record) for record in caplog.records]
        return len(shown) == 3

    await until("each failure is told", all_told)
    assert all("failed: RuntimeError at " in one for one in shown)
    assert "this one is broken" not in "\n".join(shown), "an error's text is not told"


async def test_a_log_that_cannot_be_written_keeps_none_from_being_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = ConnectionTable()
    lines = [line(table, "a") for _ in range(5)]
    for broken in lines[::2]:
        monkeypatch.setattr(broken, "stop_sending", _fail)
    monkeypatch.setattr("palyra_egress.proxy.connections._log", BrokenLog())
    with pytest.raises(RuntimeError, match="the log is broken"):
        table.cut(Ended(worker_ids=frozenset({"a"})))
    assert [one.steps for one in lines[1::2]] == [["stop sending"]] * 2


class BrokenLog:
    def error(self, *_told: object) -> None:
        raise RuntimeError("the log is broken")


async def test_one_that_cannot_be_judged_again_is_cut_and_the_others_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = ConnectionTable()
    broken, *others = (line(table, "a") for _ in range(4))
    monkeypatch.setattr(broken, "review", _fail)
    table.review()
    assert [each.steps for each in others] == [["review"]] * 3
    assert broken.cuts == [Reason.INTERNAL]
    assert not any(each.cuts for each in others)


def _fail(*_: object) -> None:
    raise RuntimeError("this one is broken")


async def test_a_second_sweep_joins_the_queue_of_the_first():
    table = ConnectionTable()
    lines = [line(table, name) for name in ("a", "b")]
    assert table.cut(Ended(worker_ids=frozenset({"a"}))) == 1
    assert table.cut(Ended(worker_ids=frozenset({"b"}))) == 1
    async with asyncio.timeout(60):
        for each in lines:
            await each.unwound.wait()


def test_a_forgotten_connection_is_not_cut_and_makes_room():
    table = ConnectionTable(max_connections=1, max_per_worker=1)
    gone = line(table, "a")
    table.forget(gone)
    table.forget(gone)  # twice is harmless
    assert table.cut(Ended(worker_ids=frozenset({"a"}))) == 0
    line(table, "a")
    assert len(table) == 1


def test_there_are_limits_for_all_and_for_each_worker():
    table = ConnectionTable(max_connections=3, max_per_worker=1)
    first = line(table, "a")
    assert table.identify(first, "a")  # again is no second one
    second = Line(Requester("a", "lease", "p"))
    assert table.admit(second, 0)
    assert not table.identify(second, "a")
    table.forget(second)
    line(table, "b")
    line(table, "c")
    assert not table.admit(Line(), 0)


def strangers(table: ConnectionTable, *sources: str, at_ms: int = 0) -> list[Line]:
    made = [Line(source=source) for source in sources]
    assert all(table.admit(one, at_ms) for one in made)
    return made


def test_beyond_their_part_a_stranger_that_has_waited_makes_room_and_nobody_else():
    table = ConnectionTable(max_connections=2 * STRANGERS_PART)
    known = line(table, "a")
    first, second = strangers(table, "192.0.2.1", "192.0.2.1")
    (third,) = strangers(table, "192.0.2.1", at_ms=PATIENCE_MS)
    assert [one.steps for one in (known, first, second, third)] == [[], ["make room"], [], []]
    assert len(table) == 3
    assert table.identify(second, "b")
    strangers(table, "192.0.2.1", at_ms=2 * PATIENCE_MS)
    assert second.steps == third.steps == []  # there is room: one has shown whose it is


def test_strangers_that_came_only_now_may_be_many_while_there_are_places():
    table = ConnectionTable(max_connections=STRANGERS_PART)
    many = strangers(table, *["192.0.2.1"] * STRANGERS_PART, at_ms=PATIENCE_MS - 1)
    assert not any(one.steps for one in many)
    strangers(table, "192.0.2.1", at_ms=PATIENCE_MS - 1)
    assert [one.steps for one in many] == [["make room"], [], [], []]
    assert len(table) == STRANGERS_PART


def test_the_source_that_has_the_most_strangers_makes_room_for_the_others():
    table = ConnectionTable(max_connections=4)
    alone, *many = strangers(table, "192.0.2.1", *["192.0.2.2"] * 3)
    strangers(table, "192.0.2.3")
    assert (alone.steps, many[0].steps, many[1].steps) == ([], ["make room"], [])


def test_what_a_channel_names_is_a_source_of_its_own():
    table = ConnectionTable(max_connections=3)
    kind = ChannelKind.PEER
    by_a = [Line(source="local", channel=Channel(kind, "a")) for _ in range(2)]
    by_b = Line(source="local", channel=Channel(kind, "b"))
    for one in (by_b, *by_a, Line(source="local")):
        assert table.admit(one, 0)
    assert (by_b.steps, by_a[0].steps) == ([], ["make room"])


def test_a_stranger_that_is_gone_makes_room_for_nobody():
    table = ConnectionTable(max_connections=1)
    (gone,) = strangers(table, "192.0.2.1")
    table.forget(gone)
    strangers(table, "192.0.2.1")
    assert gone.steps == []


@pytest.mark.parametrize("count", [0, 2])
async def test_waiting_ends_when_the_last_one_is_gone(count):
    table = ConnectionTable()
    lines = [line(table, "a") for _ in range(count)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(table.wait_until_empty(60))
        await asyncio.sleep(0)
        for each in lines:
            table.forget(each)


async def test_waiting_ends_at_its_deadline_too():
    table = ConnectionTable()
    line(table, "a")
    await table.wait_until_empty(0.01)
    assert len(table) == 1


def test_who_comes_in_numbers_is_no_flood_beside_an_attacker_of_many_addresses():
    table = ConnectionTable(max_connections=64)
    silent = strangers(table, *(f"127.0.{number}.1" for number in range(64)))
    honest = strangers(table, *["192.0.2.1"] * 7, at_ms=PATIENCE_MS)
    assert not any(one.steps for one in honest)
    assert [bool(one.steps) for one in silent] == [True] * 7 + [False] * 57
