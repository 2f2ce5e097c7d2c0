"""CapabilityDesk: who may ask what, who may answer, and that nothing is left behind."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from palyra_fleet.nodes.capabilities import (
    DEFAULT_PAYLOAD_BYTES,
    MAX_PAYLOAD_BYTES,
    TIMEOUT_MS,
    CapabilityAsk,
    CapabilityDesk,
    CapabilityLimits,
    CapabilityResult,
    capabilities_refusal,
)
from palyra_fleet.nodes.capability_refusals import CapabilityReason, CapabilityRefusal
from palyra_fleet.nodes.records import (
    CapabilityRequestRecord,
    CapabilityState,
    DeviceCapabilityRecord,
    RegisteredNodeRecord,
)
from tests.fakes.ledger_world import ulid

DEVICE, OTHER = ulid(1), ulid(2)
R1, R2, R3 = ulid(11), ulid(12), ulid(13)
NOW = 1_000


def node(device_id: str = DEVICE, **capabilities: bool) -> RegisteredNodeRecord:
    offered = capabilities or {"echo": True}
    named = {name.replace("__", "."): can for name, can in offered.items()}
    records = tuple(DeviceCapabilityRecord(name, can) for name, can in named.items())
    return RegisteredNodeRecord(device_id, "linux", records, 0, 0)


ASK = CapabilityAsk(DEVICE, "echo", b'{"a":1}', 100, "anna")
OPEN_URL = replace(ASK, capability="desktop.open_url", input_json=b'{"url":"https://a.example/x"}')
DESKTOP = node(desktop__open_url=True)
FINE = CapabilityResult(True, b'{"ok":true}', "")


def asked(
    desk: CapabilityDesk, request_id: str = R1, ask: CapabilityAsk = ASK
) -> CapabilityRequestRecord:
    where = DESKTOP if ask.capability.startswith("desktop.") else node(ask.device_id)
    record = desk.ask(request_id, ask, where, NOW)
    assert isinstance(record, CapabilityRequestRecord)
    return record


def refused(answer: object) -> CapabilityReason:
    assert isinstance(answer, CapabilityRefusal)
    return answer.reason


def test_a_request_is_queued_dispatched_once_and_answered() -> None:
    desk = CapabilityDesk()
    assert asked(desk).state is CapabilityState.QUEUED
    assert desk.has_work(DEVICE)
    found = desk.next_dispatch(node(), NOW + 1)
    assert found is not None
    dispatch, record = found
    assert (dispatch.request_id, dispatch.input_json) == (R1, b'{"a":1}')
    assert (record.state, record.dispatched_at_unix_ms) == (CapabilityState.DISPATCHED, NOW + 1)
    assert desk.next_dispatch(node(), NOW + 2) is None
    answer = desk.result(DEVICE, R1, FINE, NOW + 3)
    assert not isinstance(answer, CapabilityRefusal)
    ended, told = answer
    assert (ended.state, ended.completed_at_unix_ms) == (CapabilityState.SUCCEEDED, NOW + 3)
    assert told == FINE


def test_requests_go_out_in_order_one_at_a_time() -> None:
    desk = CapabilityDesk()
    for request_id in (R1, R2, R3):
        asked(desk, request_id)
    sent = [desk.next_dispatch(node(), NOW) for _ in range(4)]
    assert [found[0].request_id if found else None for found in sent] == [R1, R2, R3, None]


BAD_ASKS = [
    (replace(ASK, capability=""), CapabilityReason.NAME),
    (replace(ASK, capability="Echo"), CapabilityReason.NAME),
    (replace(ASK, capability="echo\n"), CapabilityReason.NAME),
    (replace(ASK, capability="e" * 65), CapabilityReason.NAME),
    (replace(ASK, capability="camera"), CapabilityReason.NOT_AVAILABLE),
    (replace(ASK, max_payload_bytes=MAX_PAYLOAD_BYTES + 1), CapabilityReason.LIMIT),
    (replace(ASK, max_payload_bytes=6), CapabilityReason.INPUT_TOO_LARGE),
    (
        replace(ASK, max_payload_bytes=0, input_json=b"1" * (DEFAULT_PAYLOAD_BYTES + 1)),
        CapabilityReason.INPUT_TOO_LARGE,
    ),
    (replace(ASK, input_json=b"{"), CapabilityReason.INPUT_NOT_JSON),
    (replace(ASK, input_json=b"NaN"), CapabilityReason.INPUT_NOT_JSON),
    (replace(ASK, input_json=b"\xff"), CapabilityReason.INPUT_NOT_JSON),
    (
        replace(ASK, input_json=b"[" * 50_000, max_payload_bytes=MAX_PAYLOAD_BYTES),
        CapabilityReason.INPUT_NOT_JSON,
    ),
]


@pytest.mark.parametrize(("ask", "reason"), BAD_ASKS)
def test_what_may_not_be_asked_is_refused(ask: CapabilityAsk, reason: CapabilityReason) -> None:
    desk = CapabilityDesk()
    assert refused(desk.ask(R1, ask, node(), NOW)) is reason
    assert desk.next_deadline_unix_ms() is None


def test_a_node_must_be_registered_and_say_that_it_can() -> None:
    desk = CapabilityDesk()
    assert refused(desk.ask(R1, ASK, None, NOW)) is CapabilityReason.NOT_REGISTERED
    unavailable = node(echo=False)
    assert refused(desk.ask(R1, ASK, unavailable, NOW)) is CapabilityReason.NOT_AVAILABLE


def test_what_became_unavailable_is_not_dispatched() -> None:
    desk = CapabilityDesk()
    asked(desk)
    assert desk.next_dispatch(node(echo=False), NOW) is None
    assert desk.next_dispatch(None, NOW) is None
    assert desk.next_dispatch(node(), NOW) is not None


def test_an_answer_counts_only_from_the_node_that_was_asked_while_it_is_open() -> None:
    desk = CapabilityDesk()
    asked(desk)
    not_theirs = CapabilityReason.NOT_THEIRS
    assert refused(desk.result(DEVICE, R1, FINE, NOW)) is not_theirs  # not dispatched yet
    assert refused(desk.awaiting_mediation(DEVICE, R1, NOW)) is not_theirs
    desk.next_dispatch(node(), NOW)
    assert refused(desk.result(OTHER, R1, FINE, NOW)) is not_theirs
    assert refused(desk.awaiting_mediation(OTHER, R1, NOW)) is not_theirs
    assert refused(desk.result(DEVICE, R2, FINE, NOW)) is not_theirs
    assert refused(desk.result(DEVICE, R1, FINE, NOW + TIMEOUT_MS)) is not_theirs  # late
    assert not isinstance(desk.result(DEVICE, R1, FINE, NOW + TIMEOUT_MS - 1), CapabilityRefusal)
    assert refused(desk.result(DEVICE, R1, FINE, NOW)) is not_theirs  # answered


def test_mediation_at_the_node_is_shown_and_then_answered() -> None:
    desk = CapabilityDesk()
    asked(desk)
    desk.next_dispatch(node(), NOW)
    waiting = desk.awaiting_mediation(DEVICE, R1, NOW + 1)
    assert isinstance(waiting, CapabilityRequestRecord)
    assert waiting.state is CapabilityState.AWAITING_LOCAL_MEDIATION
    approve = desk.decide(R1, approve=True, decided_by="anna", reason="", now=NOW + 2)
    assert refused(approve) is CapabilityReason.NOT_WAITING  # that is not an operator's to say
    assert not isinstance(desk.result(DEVICE, R1, FINE, NOW + 3), CapabilityRefusal)


@pytest.mark.parametrize("name", ["desktop.open_url", "desktop.open_path"])
def test_what_acts_on_a_screen_waits_for_an_operator(name: str) -> None:
    desk = CapabilityDesk()
    screen = node(**{name.replace(".", "__"): True})
    record = desk.ask(R1, replace(OPEN_URL, capability=name), screen, NOW)
    assert isinstance(record, CapabilityRequestRecord)
    assert record.state is CapabilityState.AWAITING_LOCAL_MEDIATION
    assert desk.next_dispatch(screen, NOW) is None
    assert desk.input_of(R1) == OPEN_URL.input_json
    agreed = desk.decide(R1, approve=True, decided_by="anna", reason="", now=NOW)
    assert isinstance(agreed, CapabilityRequestRecord)
    assert (agreed.state, agreed.decided_by) == (CapabilityState.QUEUED, "anna")
    assert desk.next_dispatch(screen, NOW) is not None


def test_a_rejected_request_stays_rejected() -> None:
    desk = CapabilityDesk()
    asked(desk, ask=OPEN_URL)
    ended = desk.decide(R1, approve=False, decided_by="anna", reason="why?", now=NOW)
    assert isinstance(ended, CapabilityRequestRecord)
    assert (ended.state, ended.error) == (CapabilityState.REJECTED, "why?")
    again = desk.decide(R1, approve=True, decided_by="bert", reason="", now=NOW)
    assert refused(again) is CapabilityReason.NOT_WAITING
    assert desk.next_dispatch(DESKTOP, NOW) is None


def test_an_operator_who_asks_has_agreed() -> None:
    desk = CapabilityDesk()
    record = asked(desk, ask=replace(OPEN_URL, approved_by="anna"))
    assert (record.state, record.decided_by) == (CapabilityState.QUEUED, "anna")


def test_an_approval_that_comes_too_late_changes_nothing() -> None:
    desk = CapabilityDesk()
    asked(desk, ask=OPEN_URL)
    late = desk.decide(R1, approve=True, decided_by="anna", reason="", now=NOW + TIMEOUT_MS)
    assert refused(late) is CapabilityReason.NOT_WAITING


def test_a_request_that_takes_too_long_leaves_its_queue() -> None:
    desk = CapabilityDesk()
    asked(desk)
    assert desk.expire(NOW + TIMEOUT_MS - 1) == []
    (ended,) = desk.expire(NOW + TIMEOUT_MS)
    assert ended.state is CapabilityState.TIMED_OUT
    assert not desk.has_work(DEVICE)
    assert desk.next_dispatch(node(), NOW) is None


def test_an_expired_request_is_not_dispatched_before_it_is_swept() -> None:
    desk = CapabilityDesk()
    asked(desk)
    assert desk.next_dispatch(node(), NOW + TIMEOUT_MS) is None


def test_an_output_over_the_limit_is_a_failure_and_goes_nowhere() -> None:
    desk = CapabilityDesk()
    asked(desk)
    desk.next_dispatch(node(), NOW)
    answer = desk.result(DEVICE, R1, CapabilityResult(True, b"1" * 101, ""), NOW)
    assert not isinstance(answer, CapabilityRefusal)
    record, told = answer
    assert (record.state, told.success, told.output_json) == (CapabilityState.FAILED, False, b"")
    assert "max_payload_bytes" in told.error


def test_one_device_cannot_take_every_place() -> None:
    desk = CapabilityDesk(CapabilityLimits(per_device=2, in_all=3))
    asked(desk, R1)
    asked(desk, R2)
    assert refused(desk.ask(R3, ASK, node(), NOW)) is CapabilityReason.TOO_MANY
    asked(desk, R3, replace(ASK, device_id=OTHER))
    full = desk.ask(ulid(14), replace(ASK, device_id=ulid(3)), node(ulid(3)), NOW)
    assert refused(full) is CapabilityReason.TOO_MANY


def test_a_device_that_goes_takes_its_requests_with_it() -> None:
    desk = CapabilityDesk()
    asked(desk, R1)
    asked(desk, R2, replace(ASK, device_id=OTHER))
    (ended,) = desk.forget_device(DEVICE, NOW)
    assert (ended.request_id, ended.state) == (R1, CapabilityState.FAILED)
    assert desk.has_work(OTHER)


def test_nothing_shows_its_input_or_output_by_accident() -> None:
    asked_for = replace(ASK, input_json=b'"s3cret"')
    assert "s3cret" not in repr(asked_for)
    assert "s3cret" not in repr(CapabilityResult(True, b"s3cret", "s3cret"))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["echo", "echo"], CapabilityReason.NAMED_TWICE),
        (["Echo"], CapabilityReason.NAME),
        ([""], CapabilityReason.NAME),
        (["a", "b", "c"], CapabilityReason.TOO_MANY_CAPABILITIES),
    ],
)
def test_a_node_registers_with_well_formed_capabilities(
    names: list[str], reason: CapabilityReason
) -> None:
    assert refused(capabilities_refusal(names, most=2)) is reason


class DeskMachine(RuleBasedStateMachine):
    """Any order of calls: a request ends once, is dispatched once, and leaves nothing behind."""

    devices = (DEVICE, OTHER)

    @initialize()
    def begin(self) -> None:
        self.desk = CapabilityDesk(CapabilityLimits(per_device=3, in_all=5, timeout_ms=50))
        self.now = NOW
        self.count = 0
        self.records: dict[str, CapabilityRequestRecord] = {}
        self.dispatched: list[str] = []

    def take(self, record: CapabilityRequestRecord) -> None:
        before = self.records.get(record.request_id)
        assert before is None or not before.state.finished, "an ended request changed"
        self.records[record.request_id] = record

    @rule(device=st.sampled_from(devices), screen=st.booleans(), agreed=st.booleans())
    def ask(self, device: str, screen: bool, agreed: bool) -> None:
        self.count += 1
        name = "desktop.open_url" if screen else "echo"
        where = node(device, **{name.replace(".", "__"): True})
        approved_by = "anna" if agreed else None
        ask = CapabilityAsk(device, name, b"1", 10, "anna", approved_by)
        answer = self.desk.ask(ulid(self.count), ask, where, self.now)
        if isinstance(answer, CapabilityRequestRecord):
            self.take(answer)
        else:
            assert answer.reason is CapabilityReason.TOO_MANY

    @rule(device=st.sampled_from(devices), can=st.booleans())
    def dispatch(self, device: str, can: bool) -> None:
        found = self.desk.next_dispatch(node(device, echo=can, desktop__open_url=can), self.now)
        if found is not None:
            assert can
            record = found[1]
            assert record.device_id == device
            assert record.request_id not in self.dispatched, "dispatched twice"
            assert record.capability == "echo" or record.decided_by == "anna"
            self.dispatched.append(record.request_id)
            self.take(record)

    @rule(device=st.sampled_from(devices), which=st.integers(1, 12), size=st.integers(0, 20))
    def result(self, device: str, which: int, size: int) -> None:
        request_id = ulid(which)
        known = self.records.get(request_id)
        answer = self.desk.result(
            device, request_id, CapabilityResult(True, b"1" * size, ""), self.now
        )
        if isinstance(answer, CapabilityRefusal):
            return
        assert known is not None
        assert known.device_id == device
        assert request_id in self.dispatched
        assert (answer[0].state is CapabilityState.SUCCEEDED) == (size <= 10)
        self.take(answer[0])

    @rule(which=st.integers(1, 12), approve=st.booleans())
    def decide(self, which: int, approve: bool) -> None:
        answer = self.desk.decide(
            ulid(which), approve=approve, decided_by="anna", reason="", now=self.now
        )
        if isinstance(answer, CapabilityRequestRecord):
            self.take(answer)

    @rule(forward=st.integers(0, 30))
    def expire(self, forward: int) -> None:
        self.now += forward
        for record in self.desk.expire(self.now):
            assert self.now - record.created_at_unix_ms >= 50
            self.take(record)

    @rule(device=st.sampled_from(devices))
    def forget(self, device: str) -> None:
        for record in self.desk.forget_device(device, self.now):
            self.take(record)

    @invariant()
    def what_is_open_is_within_bounds(self) -> None:
        still = [record for record in self.records.values() if not record.state.finished]
        assert len(still) <= 5
        for device in self.devices:
            assert sum(record.device_id == device for record in still) <= 3
            queued = [
                r for r in still if r.device_id == device and r.state is CapabilityState.QUEUED
            ]
            assert self.desk.has_work(device) == bool(queued)

    def teardown(self) -> None:
        self.desk.expire(self.now + 10**6)
        assert self.desk == CapabilityDesk(self.desk.limits), "something was left behind"


TestDesk = DeskMachine.TestCase
TestDesk.settings = settings(max_examples=60, stateful_step_count=40)
