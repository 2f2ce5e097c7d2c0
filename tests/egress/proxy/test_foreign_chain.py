"""Foreign addons run before our guard. Whatever they do, only the granted request leaves.

Each addon here is a chain as the handler takes it (`chain=`): it sees every hook first, may raise,
hang or be cancelled at it, and may change anything it is handed or has kept.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final

import pytest
from mitmproxy import http
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers import TCPLayer
from OpenSSL import SSL

from palyra_egress.proxy.hooks import DECIDED, OURS_ALONE, TOLD
from tests.egress.proxy.lanes import (
    CARRYING,
    Chaos,
    Lane,
    chaos,
    inspected,
    inspected_streamed,
    mute_upstream,
    plain,
    plain_streamed,
    refused_connect,
    socks_inspected,
    untrusted_upstream,
    websocket,
)
from tests.egress.proxy.test_chaos import CANCELLED, FAULTS, HANG_DEADLINE_S, RAISES
from tests.fakes.proxy_harness import Injection, basic, read_reply, read_to_end
from tests.fakes.upstream import recording_upstream

# Our handler dials by itself and never fires it.
NEVER_FIRED: Final = frozenset({"server_connect_error"})

NOT_DIALLED: Final = frozenset(
    {
        "client_connected",
        "http_connect",
        "http_connected",
        "http_connect_error",
        "tls_established_client",
        "tls_failed_client",
        "requestheaders",
        "server_connect",
    }
)
NOT_SENT: Final = frozenset({"server_connected", "tls_failed_server"})

_INSPECTED: Final = (inspected, inspected_streamed)


async def distrusting_worker(world: Chaos) -> bytes:
    """A worker that does not accept the proxy's certificate."""
    authority = f"api.example:{world.secure.port}"
    reader, writer = await world.harness.connect()
    writer.write(
        f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n".encode()
    )
    assert await read_reply(reader, has_body=lambda status: status != 200) is not None
    try:
        await writer.start_tls(ssl.create_default_context(), server_hostname="api.example")
    except (ssl.SSLError, OSError):
        writer.close()
        return b""
    raise AssertionError("an unknown issuer was accepted")


REACHED_BY: Final[dict[str, tuple[Lane, ...]]] = {
    "http_connect": _INSPECTED,
    "http_connected": _INSPECTED,
    "http_connect_error": (refused_connect,),
    "tls_established_client": _INSPECTED,
    "tls_failed_client": (distrusting_worker,),
    "tls_established_server": _INSPECTED,
    "tls_failed_server": (untrusted_upstream,),
    "error": (mute_upstream,),
}


def failing_chain(name: str, fault: str, struck: asyncio.Event) -> Any:
    async def chain(hook: commands.StartHook) -> None:
        if hook.name == name:
            struck.set()
            await FAULTS[fault]()

    return chain


def _faults() -> list[Any]:
    return [
        pytest.param(name, fault, lane, id=f"{name}-{fault.replace(' ', '_')}-{lane.__name__}")
        for name in sorted((DECIDED | TOLD) - OURS_ALONE - NEVER_FIRED)
        for lane in REACHED_BY.get(name, (plain, inspected_streamed, websocket))
        for fault in (FAULTS if lane is not websocket else (RAISES, CANCELLED))
    ]


@pytest.mark.parametrize(("name", "fault", "lane"), _faults())
async def test_an_addon_that_fails_at_a_hook_lets_nothing_through(tmp_path, name, fault, lane):
    struck = asyncio.Event()
    inject = Injection(
        chain=failing_chain(name, fault, struck),
        hook_deadline_s=HANG_DEADLINE_S if fault == "hangs" else None,
    )
    async with chaos(tmp_path, inject) as world:
        got = await lane(world)
        async with asyncio.timeout(60):
            await struck.wait()
        await world.everything_is_closed()
        if name in NOT_DIALLED or (name == "request" and lane is not inspected_streamed):
            world.nothing_was_dialled()
        elif name in NOT_SENT:
            world.nothing_was_received()
        assert got.count(b"hello") <= 1


# --- what an addon changes ----------------------------------------------------------------------

type Change = Callable[[Any], None]


def _set(name: str, value: Any) -> Change:
    def change(flow: http.HTTPFlow) -> None:
        setattr(flow.request.data, name, value)

    return change


def _set_header(name: str, value: str) -> Change:
    def change(flow: http.HTTPFlow) -> None:
        flow.request.headers[name] = value

    return change


def _use_other_proxy(flow: http.HTTPFlow) -> None:
    flow.server_conn.via = ("http", ("127.0.0.1", 1))


def _drop_meter(flow: http.HTTPFlow) -> None:
    flow.request.stream = True


CHANGES: Final[dict[str, Change]] = {
    "host": _set("host", "127.0.0.1"),
    "port": _set("port", 1),
    "scheme": _set("scheme", b"ftp"),
    "method": _set("method", b"DELETE"),
    "path": _set("path", b"/evil"),
    "authority": _set("authority", b"evil.example"),
    "version": _set("http_version", b"HTTP/2.0"),
    "Host header": _set_header("Host", "evil.example"),
    "another header": _set_header("X-Smuggled", "evil"),
    "framing": _set_header("Content-Length", "7"),
    "content behind the head": _set("content", b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"),
    "another proxy": _use_other_proxy,
}

# The last hooks before a request leaves, for an addon that kept the flow from `requestheaders`.
MOMENTS: Final = {
    plain: ("request", "server_connect", "server_connected"),
    plain_streamed: ("server_connect", "server_connected"),
    inspected: ("request", "server_connect", "server_connected"),
    inspected_streamed: ("server_connect", "server_connected"),
    websocket: ("server_connected",),
}


def changing_chain(moment: str, change: Change) -> Any:
    kept: list[http.HTTPFlow] = []

    async def chain(hook: commands.StartHook) -> None:
        if hook.name == "requestheaders":
            kept.extend(hook.args())
        if hook.name == moment:
            change(kept[-1])

    return chain


def _changes() -> list[Any]:
    return [
        pytest.param(lane, moment, change, id=f"{change}-{moment}-{lane.__name__}")
        for lane, moments in MOMENTS.items()
        for moment in moments
        for change in CHANGES
    ]


def _only_what_was_granted(world: Chaos, lane: Lane) -> None:
    """If anything arrived at all, it is the request of the lane and no other."""
    method = b"POST" if "streamed" in lane.__name__ else b"GET"
    for upstream in world.upstreams:
        received = bytes(upstream.received)
        assert b"evil" not in received.lower()
        assert b"DELETE" not in received
        if received:
            assert upstream.heads == [method + b" /x HTTP/1.1"]
            assert received.lower().count(b"\r\nhost: ") == 1


@pytest.mark.parametrize(("lane", "moment", "change"), _changes())
async def test_a_request_that_an_addon_changes_after_the_verdict_does_not_leave(
    tmp_path, lane, moment, change
):
    async with chaos(tmp_path, Injection(chain=changing_chain(moment, CHANGES[change]))) as world:
        await lane(world)
        await world.everything_is_closed()
        _only_what_was_granted(world, lane)
        if change != "another proxy":  # the route was taken already, and it was the granted one
            world.nothing_was_received()


@pytest.mark.parametrize("lane", CARRYING)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_request_that_an_addon_changes_before_the_verdict_is_judged_as_it_leaves(
    tmp_path, lane, change
):
    """The judge sees what was sent; what an addon made of it meanwhile must not leave."""
    inject = Injection(chain=changing_chain("requestheaders", CHANGES[change]))
    async with chaos(tmp_path, inject) as world:
        await lane(world)
        await world.everything_is_closed()
        for upstream in world.upstreams:
            received = bytes(upstream.received)
            assert b"/evil" not in received
            assert b"DELETE" not in received
            assert b"evil.example" not in received


async def test_a_stream_that_an_addon_takes_off_the_meter_does_not_leave(tmp_path):
    inject = Injection(chain=changing_chain("server_connected", _drop_meter))
    async with chaos(tmp_path, inject) as world:
        assert b" 200 " not in await plain_streamed(world)
        await world.everything_is_closed()
        world.nothing_was_received()


# --- answers, refusals and layers ----------------------------------------------------------------


def at(name: str, change: Change) -> Any:
    async def chain(hook: commands.StartHook) -> None:
        if hook.name == name:
            (subject,) = hook.args()
            change(subject)

    return chain


def _answer_by_itself(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(200, b"made up")


@pytest.mark.parametrize("lane", [plain, inspected])
async def test_an_answer_that_an_addon_makes_up_sends_nothing_upstream(tmp_path, lane):
    async with chaos(tmp_path, Injection(chain=at("request", _answer_by_itself))) as world:
        await lane(world)
        await world.everything_is_closed()
        world.nothing_was_dialled()


@pytest.mark.parametrize("lane", CARRYING)
async def test_an_answer_that_an_addon_makes_up_before_the_verdict_is_not_taken(tmp_path, lane):
    async with chaos(tmp_path, Injection(chain=at("requestheaders", _answer_by_itself))) as world:
        assert b"made up" not in await lane(world)
        await world.everything_is_closed()


async def test_a_made_up_answer_does_not_open_a_refused_tunnel(tmp_path):
    def say_yes(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(200)

    async with chaos(tmp_path, Injection(chain=at("http_connect", say_yes))) as world:
        assert await refused_connect(world) == b"refused 403"
        world.nothing_was_dialled()


def _lift(flow: http.HTTPFlow) -> None:
    flow.response = None
    flow.error = None


@pytest.mark.parametrize("inside_tls", [True, False])
async def test_a_refusal_that_an_addon_lifts_does_not_reach_an_open_upstream(tmp_path, inside_tls):
    """The connection to the upstream is open already, so nothing is dialled for the second."""
    refused_now: list[bool] = []

    def lift_second(flow: http.HTTPFlow) -> None:
        if "/second" in flow.request.path:
            refused_now.append(True)
            _lift(flow)

    async with chaos(tmp_path, Injection(chain=at("request", lift_second))) as world:
        upstream = world.secure if inside_tls else world.plain
        if inside_tls:
            authority = f"api.example:{upstream.port}"
            _, reader, writer = await world.harness.tunnel(authority)
            prefix, credentials = "", ""
        else:
            authority = f"plain.example:{upstream.port}"
            reader, writer = await world.harness.connect()
            prefix = f"http://{authority}"
            credentials = f"Proxy-Authorization: {basic()}\r\n"
        writer.write(
            f"GET {prefix}/first HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n".encode()
        )
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
        before = bytes(upstream.received)
        writer.write(
            f"DELETE {prefix}/second HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n".encode()
        )
        got = await read_to_end(reader)
        writer.close()
        assert refused_now
        assert b"hello" not in got
        assert bytes(upstream.received) == before
        await world.everything_is_closed()


async def test_a_server_address_that_an_addon_changes_is_not_dialled(tmp_path):
    async with recording_upstream() as elsewhere:

        def redirect(data: Any) -> None:
            data.server.address = ("127.0.0.1", elsewhere.port)

        async with chaos(tmp_path, Injection(chain=at("server_connect", redirect))) as world:
            assert b" 200 " not in await plain(world)
            await world.everything_is_closed()
            world.nothing_was_dialled()
            assert elsewhere.connections == 0


def _choose_raw(next_layer: Any) -> None:
    next_layer.layer = TCPLayer(next_layer.context)


def _ignore(data: Any) -> None:
    data.ignore_connection = True
    data.establish_server_tls_first = True


def _trust_everybody(data: Any) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    data.ssl_conn = SSL.Connection(context)
    data.ssl_conn.set_connect_state()


def _welcome(shown: Any) -> None:
    shown.refusal = None


def _lead_elsewhere(asked: Any) -> None:
    asked.host, asked.port = "other.example", 9


HIJACKS: Final = {
    "socks_shown": _welcome,
    "tunnel_asked": _lead_elsewhere,
    "next_layer": _choose_raw,
    "tls_clienthello": _ignore,
    "tls_start_client": _trust_everybody,
    "tls_start_server": _trust_everybody,
}


def test_every_hook_that_is_ours_alone_has_an_attempt_to_take_it():
    assert set(HIJACKS) == set(OURS_ALONE)


@pytest.mark.parametrize("name", sorted(OURS_ALONE))
async def test_which_protocol_and_which_tls_is_never_an_addons_choice(tmp_path, name):
    seen: list[str] = []

    async def chain(hook: commands.StartHook) -> None:
        seen.append(hook.name)
        if hook.name == name:
            HIJACKS[name](*hook.args())

    async with chaos(tmp_path, Injection(chain=chain)) as world:
        assert b"egress.upstream_tls" in await untrusted_upstream(world)
        world.nothing_was_received()
        assert b" 200 OK" in await inspected(world)
        assert b" 200 OK" in await socks_inspected(world)
        assert world.secure.heads == [b"GET /x HTTP/1.1"] * 2
        reader, writer = await world.harness.connect()
        writer.write(b"\x00\x01 not http at all\r\n\r\n")
        assert b"egress.request_malformed" in await read_to_end(reader)
        writer.close()
        await world.everything_is_closed()
    assert name not in seen
