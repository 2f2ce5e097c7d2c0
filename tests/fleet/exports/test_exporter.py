"""The exporter: every event once at least, in order, whatever the receiver, the disk and the fleet
do; and nobody waits for it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.client import WorkerAction
from palyra_fleet.exports.cursor import Cursor
from palyra_fleet.exports.exporter import MAX_BATCH, MOST_WAIT_S, Exporter
from palyra_fleet.exports.receiver import Undelivered
from palyra_fleet.exports.running import exporting
from palyra_fleet.exports.settings import ExportSettings
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.signals.export_counts import ALARM_AFTER_MS, ExportCounts, ExportProblem
from palyra_fleet.store.event_chain import ChainHead
from palyra_fleet.wire.models import EventView
from tests.fakes.raw_http import ask
from tests.fakes.real_fleet import real_fleet
from tests.fakes.siem import entries, siem, status, write_secret
from tests.fakes.until import until
from tests.fleet.api.test_with_real_fleet import registered
from tests.fleet.signals.test_metrics import scraped


@dataclass
class Log:
    """An event log in memory; what is before `kept_from` is in the archive."""

    all: tuple[EventView, ...] = ()
    kept_from: int = 1
    broken: bool = False

    async def events(self, after_seq: int, limit: int) -> tuple[EventView, ...]:
        if self.broken:
            raise FleetRefusal(FleetReason.STORE_UNAVAILABLE, "the disk is gone")
        after = max(after_seq, self.kept_from - 1)
        return self.all[after : after + limit]


@dataclass
class Sink:
    """A receiver that refuses as it is told, one answer a call; then it takes everything."""

    refusals: list[ExportProblem | None] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    async def deliver(self, events: Sequence[EventView]) -> None:
        self.sizes.append(len(events))
        problem = self.refusals.pop(0) if self.refusals else None
        if problem is not None:
            raise Undelivered(problem)
        self.taken += [event.seq for event in events]

    async def close(self) -> None:
        pass


class Enough(Exception):
    """Ends an exporter in a test."""


def exporter(log: Log, sink: Sink, path: Path, pauses: int = 1) -> tuple[Exporter, list[float]]:
    """It ends at its n-th pause; how long each was to be."""
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) >= pauses:
            raise Enough

    return Exporter("sink", log, sink, Cursor.open(path), ExportCounts(), pause), waited


async def ran(made: Exporter) -> None:
    with pytest.raises(Enough):
        await made.run()


async def test_everything_arrives_in_order_and_a_restart_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    log, sink = Log(entries(MAX_BATCH * 2 + 5)), Sink()
    made, _ = exporter(log, sink, tmp_path / "c" / "sink.json")
    await ran(made)
    assert sink.taken == list(range(1, MAX_BATCH * 2 + 6))
    assert made.counts.waiting_since_unix_ms is None
    log.all = entries(MAX_BATCH * 2 + 7)
    again, _ = exporter(log, sink, tmp_path / "c" / "sink.json")
    await ran(again)
    assert sink.taken[-3:] == [MAX_BATCH * 2 + 5, MAX_BATCH * 2 + 6, MAX_BATCH * 2 + 7]
    assert again.counts.delivered == 2


async def test_a_batch_that_is_not_taken_comes_again_later_and_later(tmp_path: Path) -> None:
    log, sink = Log(entries(3)), Sink([ExportProblem.FAILED] * 12)
    made, waited = exporter(log, sink, tmp_path / "sink.json", pauses=13)
    await ran(made)
    assert sink.taken == [1, 2, 3]
    assert made.counts.failures == {ExportProblem.FAILED: 12}
    assert made.counts.problem is None
    for number, seconds in enumerate(waited[:12]):
        most = min(2**number, MOST_WAIT_S)
        assert most / 2 <= seconds <= most


async def test_a_batch_that_is_too_large_comes_in_parts(tmp_path: Path) -> None:
    log, sink = Log(entries(8)), Sink([ExportProblem.TOO_LARGE] * 2)
    made, _ = exporter(log, sink, tmp_path / "sink.json", pauses=3)
    await ran(made)
    assert sink.sizes[:3] == [8, 4, 2]
    assert sink.taken == list(range(1, 9))


@given(st.lists(st.sampled_from([None, *ExportProblem]), max_size=12), st.integers(1, 250))
def test_every_event_is_taken_in_order_whatever_is_refused(
    tmp_path_factory: pytest.TempPathFactory, refusals: list[ExportProblem | None], count: int
) -> None:
    path = tmp_path_factory.mktemp("cursor") / "sink.json"

    async def export() -> Sink:
        sink = Sink(list(refusals))
        for _ in range(len(refusals) + 1):  # a process for each pause
            made, _waited = exporter(Log(entries(count)), sink, path)
            await ran(made)
        return sink

    assert asyncio.run(export()).taken == list(range(1, count + 1))


async def test_what_went_into_the_archive_is_passed_over_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, sink = Log(entries(10)), Sink()
    log.all = log.all[:3]
    first, _ = exporter(log, sink, tmp_path / "sink.json")
    await ran(first)
    log.all, log.kept_from = entries(10), 8
    made, _ = exporter(log, sink, tmp_path / "sink.json")
    await ran(made)
    assert sink.taken == [1, 2, 3, 8, 9, 10]
    assert (made.counts.skipped, made.counts.delivered) == (4, 3)
    assert "4 events went into the archive before sink took them" in caplog.text
    fresh, _ = exporter(log, Sink(), tmp_path / "other.json")
    await ran(fresh)
    assert fresh.counts.skipped == 0  # what was archived before there was an exporter


@pytest.mark.parametrize("restored_to", [2, 9])
async def test_a_log_that_was_restored_is_sent_from_its_beginning(
    restored_to: int, tmp_path: Path
) -> None:
    """Shorter than what was exported, or grown again with other entries under the same numbers."""
    log, sink = Log(entries(6)), Sink()
    first, _ = exporter(log, sink, tmp_path / "sink.json")
    await ran(first)
    kept = log.all[:2]
    head = ChainHead(2, kept[-1].sha256)
    log.all = (*kept, *entries(restored_to - 2, head, restored=True))
    sink.taken.clear()
    made, _ = exporter(log, sink, tmp_path / "sink.json")
    await ran(made)
    assert sink.taken == list(range(1, restored_to + 1))


async def test_a_store_and_a_disk_that_fail_are_problems_and_no_end(tmp_path: Path) -> None:
    log, sink = Log(entries(2), broken=True), Sink()
    made, _ = exporter(log, sink, tmp_path / "sink.json")
    await ran(made)
    assert made.counts.problem is ExportProblem.STORE
    log.broken = False
    (tmp_path / "sink.json.new").mkdir()  # the draft of the cursor cannot be made
    await ran(made)
    assert made.counts.problem is ExportProblem.CURSOR
    assert sink.taken == [1, 2]
    (tmp_path / "sink.json.new").rmdir()
    await ran(made)
    assert (made.counts.problem, sink.taken) == (None, [1, 2])
    assert Cursor.open(tmp_path / "sink.json").seq == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"seq": 5}', '{"seq": "5", "sha256": 1}', '{"seq": 5, "sha256": "x"}']
)
def test_a_cursor_that_cannot_be_read_begins_again(text: str, tmp_path: Path) -> None:
    file = tmp_path / "sink.json"
    file.write_text(text)
    file.chmod(0o600)
    assert Cursor.open(file).seq == 0


def test_an_alarm_says_how_long_and_why_and_not_where() -> None:
    counts = ExportCounts()
    assert counts.alarm(10**9) is None
    counts.failed(ExportProblem.UNTRUSTED)
    counts.waiting_since_unix_ms = 0
    assert counts.alarm(ALARM_AFTER_MS - 1) is None
    assert counts.alarm(61_500) == "an event waits for its export for 61 s: untrusted"
    counts.problem = None
    assert "its receiver is slow" in str(counts.alarm(61_500))
    counts.failed(ExportProblem.STOPPED)
    assert "start the fleet again" in str(counts.alarm(0))


async def test_a_dead_receiver_shows_in_metrics_and_holds_up_no_quarantine(tmp_path: Path) -> None:
    secret = write_secret(tmp_path / "secret")
    async with real_fleet() as fleet, siem() as receiver:
        receiver.answer = status(500)
        settings = ExportSettings(receiver.url, secret)
        async with exporting(fleet.service, settings, tmp_path), registered(fleet):
            await receiver.until(lambda: receiver.asked > 0)
            (worker,) = await fleet.operator.workers()
            view = await fleet.operator.act(WorkerAction.QUARANTINE, worker.worker_id, "why")
            assert view.state == "quarantined"
            (counts,) = fleet.service.counts.exports.values()
            counts.waiting_since_unix_ms = 1  # long ago
            shown = await scraped(fleet)
            ready = await ask(fleet.server.admin_url, "GET", "/readyz")
            receiver.answer = status(204)
            events = await fleet.operator.events(0, 1000)
            wanted = [event.seq for event in events]
            await receiver.until(lambda: receiver.sequences[-1:] == wanted[-1:])
    assert shown["palyra_fleet_export_failures_total"][("failed", "webhook")] >= 1
    assert shown["palyra_fleet_export_lag_seconds"][("webhook",)] > 60
    assert ready.status == 200  # the fleet decides all the same
    assert "failed" in ready.json["alarms"]["export_webhook"]
    assert receiver.url not in ready.body.decode()
    assert receiver.sequences == wanted


async def test_a_fault_of_ours_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Any) -> bool:
        raise LookupError

    monkeypatch.setattr(Exporter, "step", broken)
    async with real_fleet() as fleet:
        settings = ExportSettings(syslog=f"unix://{tmp_path}/none")
        async with exporting(fleet.service, settings, tmp_path):
            await until("it is told", lambda: "export_syslog" in fleet.service.alarms())
