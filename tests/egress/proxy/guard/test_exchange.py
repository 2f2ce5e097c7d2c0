"""What leaves, what comes back, and the seal between the verdict and the wire."""

import pytest
from mitmproxy import http
from mitmproxy.net.http.http1 import read_request_head

from palyra_egress.proxy.bounds.budgets import Direction
from palyra_egress.proxy.guard.exchange import (
    VIA,
    Exchange,
    Seal,
    forwardable,
    is_as_read,
    never_forwarded,
    returnable,
)
from palyra_egress.proxy.http.canonical import TargetRefused, plain_target
from palyra_egress.proxy.http.request_head import RequestHead
from palyra_egress.proxy.judgement import Judgement
from palyra_egress.reasons import Reason
from palyra_egress.verdict import NO_LIMITS, Limits
from tests.egress.proxy.lanes import chaos, plain, untrusted_upstream
from tests.fakes.proxy_harness import basic

URL = "http://a.example/p?q"


def request(*headers: str, target: str = URL, method: str = "GET") -> http.Request:
    lines = [f"{method} {target} HTTP/1.1", "Host: a.example", *headers]
    return read_request_head([line.encode("latin-1") for line in lines])


def target_of(target: str = URL):
    return plain_target(RequestHead("GET", target), ["a.example"])


def left(*headers: str) -> dict[str, str]:
    """The headers that leave, by their small names."""
    made = request(*headers)
    forwardable(made, target_of())
    return {name.lower(): value for name, value in made.headers.items(multi=True)}


GONE = [
    "Proxy-Authorization: Basic x",
    "Proxy-Connection: keep-alive",
    "Proxy-Anything: x",
    "Keep-Alive: 5",
    "TE: trailers",
    "Trailer: X",
    "Upgrade: h2c",
    "X-Palyra-Worker: x",
    "Palyra-Worker-Key: x",
]


@pytest.mark.parametrize("header", GONE)
def test_what_ends_at_the_proxy_does_not_leave(header):
    assert header.partition(":")[0].lower() not in left(header)


def test_what_connection_names_does_not_leave_and_close_stays():
    headers = left("Connection: X-Drop, close", "X-Drop: 1", "X-Keep: 2")
    assert "x-drop" not in headers
    assert (headers["x-keep"], headers["connection"]) == ("2", "close")


def test_connection_may_not_take_the_host_away():
    with pytest.raises(TargetRefused):
        left("Connection: Host")


def test_the_proxy_signs_every_request_that_leaves_after_others():
    assert left()["via"] == VIA
    assert left("Via: 1.0 other")["via"] == f"1.0 other, {VIA}"


def test_the_request_leaves_in_origin_form_to_the_judged_target():
    made = request("Host: evil.example")
    forwardable(made, target_of())
    assert made.headers.get_all("host") == ["a.example"]
    assert (made.data.host, made.data.port, made.data.authority) == ("a.example", 80, b"")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (f"Via: {VIA}", Reason.LOOP),
        (f"Via: 1.0 x, {VIA}", Reason.LOOP),
        ("Transfer-Encoding: gzip, chunked", Reason.REQUEST_MALFORMED),
        ("Via: 1.1 other", None),
        ("X: y", None),
    ],
)
def test_loops_and_strange_codings_are_never_forwarded(header, reason):
    assert never_forwarded(request(header).headers) is reason


def returned(*headers: tuple[str, str]) -> dict[str, str]:
    response = http.Response.make(200, b"", [(n.encode(), v.encode()) for n, v in headers])
    returnable(request(), response)
    return {name.lower(): value for name, value in response.headers.items(multi=True)}


@pytest.mark.parametrize(
    "name",
    ["Alt-Svc", "Proxy-Status", "Proxy-Authenticate", "Keep-Alive", "Upgrade", "X-Palyra-Decision"],
)
def test_a_server_cannot_speak_for_the_proxy_or_lead_around_it(name):
    assert name.lower() not in returned((name, "x"))


def test_a_servers_connection_header_takes_only_what_it_may():
    headers = returned(
        ("Connection", "X-Drop, Content-Length"), ("X-Drop", "1"), ("Content-Length", "0")
    )
    assert "x-drop" not in headers
    assert headers["content-length"] == "0"


# --- the seal -------------------------------------------------------------------------------------


def exchange(made: http.Request, limits: Limits = NO_LIMITS) -> Exchange:
    judgement = Judgement(Reason.ALLOWED, "id", allowed=True, limits=limits)
    granted = Exchange(
        "flow", target_of(), judgement, Seal.of(made), 0, spend=lambda *_: True, cut=lambda _: None
    )
    made.stream = granted.meter_request
    return granted


CHANGES = {
    "method": lambda r: setattr(r.data, "method", b"PUT"),
    "scheme": lambda r: setattr(r.data, "scheme", b"https"),
    "host": lambda r: setattr(r.data, "host", "b.example"),
    "port": lambda r: setattr(r.data, "port", 81),
    "path": lambda r: setattr(r.data, "path", b"/evil"),
    "authority": lambda r: setattr(r.data, "authority", b"b.example"),
    "http_version": lambda r: setattr(r.data, "http_version", b"HTTP/2.0"),
    "one more header": lambda r: r.headers.add("X", "y"),
    "a header's value": lambda r: r.headers.__setitem__("Host", "b.example"),
    "one header less": lambda r: r.headers.__delitem__("Host"),
    "a body": lambda r: setattr(r.data, "content", b"x"),
    "trailers": lambda r: setattr(r.data, "trailers", http.Headers([(b"X", b"y")])),
    "the meter": lambda r: setattr(r, "stream", True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_breaks_the_seal(change):
    made = request()
    sealed = exchange(made)
    assert sealed.holds(made)
    CHANGES[change](made)
    assert not sealed.holds(made)


def test_the_seal_covers_every_field_that_a_request_has():
    """A new field of mitmproxy's request must be looked at here."""
    known = set(Seal.__slots__) - {"buffered", "trailers"}
    carried = {"content", "trailers", "timestamp_start", "timestamp_end"}
    assert set(vars(request().data)) == known | carried


@pytest.mark.parametrize(
    ("target", "path", "same"),
    [
        (URL, b"/p?q", True),
        (URL, b"/p", False),
        (URL, b"/p?q2", False),
        (URL, b"/P?q", False),
        ("http://a.example/p?", b"/p?", True),
        ("http://a.example", b"/", True),
    ],
)
def test_the_parsed_path_must_be_the_judged_one(target, path, same):
    made = request(target=target)
    made.data.path = path
    assert is_as_read(made, target_of(target)) is same


@pytest.mark.parametrize("limit", [None, 0, 10])
def test_a_budget_ends_with_its_last_byte(limit):
    for take in ("take_request", "take_response"):
        counted = exchange(request(), Limits(limit, limit))
        spend = getattr(counted, take)
        assert spend(0)
        assert spend(10) is (limit != 0)
        assert spend(1) is (limit is None)


def test_a_meter_passes_data_on_until_a_budget_is_crossed_and_then_holds_back():
    cuts: list[Reason] = []
    hour = [100]
    ways: list[tuple[Direction, int]] = []

    def spend(direction: Direction, count: int) -> bool:
        ways.append((direction, count))
        hour[0] -= count
        return hour[0] >= 0

    made = request()
    judgement = Judgement(Reason.ALLOWED, "id", allowed=True, limits=Limits(60, None))
    granted = Exchange(
        "flow", target_of(), judgement, Seal.of(made), 0, spend=spend, cut=cuts.append
    )
    assert granted.meter_request(b"x" * 50) == b"x" * 50
    assert granted.meter_response(b"y" * 50) == b"y" * 50
    assert granted.meter_response(b"y") == []
    assert granted.meter_request(b"x" * 20) == []
    assert cuts == [Reason.BUDGET_SPENT, Reason.REQUEST_TOO_LARGE]
    sent, got = Direction.OUT, Direction.IN
    assert ways == [(sent, 50), (got, 50), (got, 1), (sent, 20)]


def test_a_meter_of_an_ended_exchange_holds_everything_back():
    granted = exchange(request())
    granted.ended = True
    assert granted.meter_request(b"late") == []
    assert granted.meter_response(b"late") == []


# --- answers name their decision ------------------------------------------------------------------


async def test_an_upstream_failure_names_the_decision_that_let_the_request_go(tmp_path):
    async with chaos(tmp_path) as world:
        answer = (await untrusted_upstream(world)).decode()
        allowed = world.harness.verdicts()[-1]
        assert allowed["effect"] == "allow"
        assert f"X-Palyra-Decision: {allowed['decision_id']}\r\n" in answer


async def test_a_request_that_no_hook_sees_is_audited_and_names_its_decision(tmp_path):
    async with chaos(tmp_path) as world:
        reply = await world.harness.send(
            f"GET / HTTP/1.1\r\nProxy-Authorization: {basic()}\r\n\r\n".encode()
        )
        assert reply is not None and reply.status == 400
        (entry,) = world.harness.verdicts()
        assert entry["decision_id"] == reply.headers["x-palyra-decision"]


async def test_one_exchange_has_one_verdict_and_one_transfer(tmp_path):
    async with chaos(tmp_path) as world:
        await plain(world)
        await world.everything_is_closed()
        entries = world.harness.audit()
        assert [entry["kind"] for entry in entries] == ["verdict", "transfer"]
        verdict, transfer = entries
        assert verdict["decision_id"] == transfer["decision_id"]
        assert (transfer["outcome"], transfer["response_bytes"]) == ("complete", 5)
