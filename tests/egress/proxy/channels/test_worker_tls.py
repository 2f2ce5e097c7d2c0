"""Mutual TLS to the proxy, over real sockets: who gets in, as whom, and until when."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from palyra_egress.proxy.bounds.deadlines import DEADLINES
from palyra_egress.proxy.channels.worker_tls import WorkerRootsError, read_roots
from tests.egress.proxy.channels.channel_world import (
    FLEET,
    IMPOSTOR,
    ChannelWorld,
    bound,
    certificate_for,
    channel_world,
    real_now,
    shown_by,
    worker_tls,
    write_roots,
)
from tests.fakes.hostile_certificates import FLAWS, Authority, flawed
from tests.fakes.proxy_harness import (
    LEASE,
    OTHER_LEASE,
    OTHER_SECRET,
    OTHER_WORKER,
    WORKER,
    basic,
    read_reply,
    read_to_end,
)
from tests.fakes.until import until


@pytest.fixture
async def world(tmp_path: Path):
    async with channel_world(tmp_path, worker_tls(tmp_path)) as made:
        yield made


async def test_a_bound_certificate_needs_no_credentials(world: ChannelWorld, tmp_path: Path):
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    reply = await world.ask(await world.over_tls(shown))
    assert reply is not None and (reply.status, reply.body) == (200, b"hello")
    (entry,) = world.harness.verdicts()
    assert (entry["worker_id"], entry["lease_id"]) == (WORKER, LEASE)


async def test_a_tunnel_is_opened_and_inspected_inside_that_tls(
    world: ChannelWorld, tmp_path: Path
):
    """CONNECT inside TLS, then TLS inside TLS; here the inner host is refused, readably."""
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    reader, writer = await world.over_tls(shown)
    writer.write(b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n")
    reply = await read_reply(reader)
    assert reply is not None and (reply.status, reply.reason) == (403, "egress.host_not_allowed")


async def test_credentials_of_the_same_lease_may_be_sent_too(world: ChannelWorld, tmp_path: Path):
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    reply = await world.ask(await world.over_tls(shown), basic())
    assert reply is not None and reply.status == 200


@pytest.mark.parametrize("flaw", [*FLAWS, "an impostor's authority", "no certificate"])
async def test_a_certificate_that_is_wrong_in_one_thing_gets_nobody_in(
    world: ChannelWorld, tmp_path: Path, flaw: str
):
    """Bound by the fleet as it is, so that nothing but the certificate stands in the way."""
    if flaw == "no certificate":
        shown = None
    elif flaw == "an impostor's authority":
        shown = certificate_for(tmp_path, authority=IMPOSTOR)
    else:
        shown = shown_by(tmp_path, *flawed(flaw, FLEET, WORKER, real_now()))
    world.rebind(*([] if shown is None else [shown.fingerprint]))
    try:
        reply = await world.ask(await world.over_tls(shown), basic())
    except OSError:
        reply = None
    assert reply is None
    (entry,) = world.harness.verdicts()
    assert (entry["early"], entry["worker_id"]) == (True, None)
    assert entry["reason"] in ("egress.no_identity", "egress.bad_credentials")
    world.nothing_left()


REFUSED_AT_THE_REQUEST = {
    "a certificate that no lease has": ((), 403, "egress.certificate_not_bound"),
    "another certificate of the worker is bound": (
        ("0" * 64,),
        403,
        "egress.certificate_not_bound",
    ),
}


@pytest.mark.parametrize("case", REFUSED_AT_THE_REQUEST)
async def test_a_certificate_that_the_fleet_has_not_bound_speaks_for_nobody(
    world: ChannelWorld, tmp_path: Path, case: str
):
    fingerprints, status, reason = REFUSED_AT_THE_REQUEST[case]
    world.rebind(*fingerprints)
    reply = await world.ask(await world.over_tls(certificate_for(tmp_path)))
    assert reply is not None and (reply.status, reply.reason) == (status, reason)
    world.nothing_left()


async def test_without_a_live_lease_a_good_certificate_speaks_for_nobody(
    world: ChannelWorld, tmp_path: Path
):
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    world.harness.tell("unbind", lease_id=LEASE)
    reply = await world.ask(await world.over_tls(shown), None)
    assert reply is not None and (reply.status, reply.reason) == (403, "egress.no_lease")
    world.nothing_left()


async def test_the_lease_of_another_worker_is_not_this_certificates(
    world: ChannelWorld, tmp_path: Path
):
    """Another worker's lease is bound with this fingerprint: the name in it decides."""
    shown = certificate_for(tmp_path)
    world.harness.tell(
        "snapshot",
        bindings=(
            bound(shown.fingerprint, worker=OTHER_WORKER, lease=OTHER_LEASE, secret=OTHER_SECRET),
        ),
    )
    reply = await world.ask(await world.over_tls(shown))
    assert reply is not None and reply.reason == "egress.no_lease"
    world.nothing_left()


async def test_another_workers_credentials_on_this_channel_cost_this_worker(
    world: ChannelWorld, tmp_path: Path
):
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    reply = await world.ask(await world.over_tls(shown), basic(OTHER_LEASE, OTHER_SECRET))
    assert reply is not None and (reply.status, reply.reason) == (
        403,
        "egress.foreign_credentials",
    )
    world.nothing_left()
    view = world.harness.core.view
    assert (view.is_blocked(WORKER), view.is_blocked(OTHER_WORKER)) == (True, False)


@pytest.mark.parametrize(
    ("credentials", "reason"),
    [
        (basic(secret="w" * 43), "egress.bad_credentials"),
        ("Basic !!!", "egress.bad_credentials"),
        ("", "egress.bad_credentials"),
        ("Bearer x", "egress.bad_credentials"),
        (basic(lease="01ARZ3NDEKTSV4RRFFQ69G5FA0"), "egress.no_lease"),
    ],
)
async def test_credentials_that_are_sent_must_be_good_whatever_the_certificate(
    world: ChannelWorld, tmp_path: Path, credentials: str, reason: str
):
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    reply = await world.ask(await world.over_tls(shown), credentials)
    assert reply is not None and reply.reason == reason
    world.nothing_left()


async def test_a_certificate_that_is_taken_back_ends_its_open_connection(
    world: ChannelWorld, tmp_path: Path
):
    first = certificate_for(tmp_path, name="first")
    second = certificate_for(tmp_path, name="second")
    world.rebind(first.fingerprint, second.fingerprint)
    with_first, with_second = await world.over_tls(first), await world.over_tls(second)
    for stream in (with_first, with_second):
        reply = await world.ask(stream)
        assert reply is not None and reply.status == 200
    world.rebind(second.fingerprint)
    assert await read_to_end(with_first[0]) == b""
    reply = await world.ask(with_second)
    assert reply is not None and reply.status == 200


async def test_a_certificate_is_asked_again_at_every_request(world: ChannelWorld, tmp_path: Path):
    """Its time ends between two requests of one connection."""
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    stream = await world.over_tls(shown)
    reply = await world.ask(stream)
    assert reply is not None and reply.status == 200
    clocks = world.harness.core.clocks
    day_ms = 24 * 3_600_000
    world.harness.tell("bind", bindings=(bound(shown.fingerprint, lives_ms=7 * day_ms),))
    world.harness.core.clocks = type(clocks)(
        lambda: clocks.now_unix_ms() + day_ms, clocks.now_monotonic_ms
    )
    reply = await world.ask(stream)  # cut already, perhaps: it is looked at between requests too
    assert reply is None or (reply.status, reply.reason) == (403, "egress.certificate_not_bound")
    assert len(world.upstream.heads) == 1


async def test_no_session_is_resumed_and_nothing_below_tls_1_3_is_spoken(
    world: ChannelWorld, tmp_path: Path
):
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    old = world.tls_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        await world.over_tls(shown, old)
    context = world.tls_context()
    stream = await world.over_tls(shown, context)
    assert (await world.ask(stream)) is not None
    session = stream[1].get_extra_info("ssl_object").session
    assert not session.has_ticket


async def test_new_roots_of_the_fleet_count_from_the_next_handshake_on(
    world: ChannelWorld, tmp_path: Path
):
    new = Authority.make()
    before, after = certificate_for(tmp_path), certificate_for(tmp_path, authority=new, name="new")
    world.rebind(before.fingerprint, after.fingerprint)
    with pytest.raises(OSError):
        stream = await world.over_tls(after)
        if await world.ask(stream) is None:
            raise ConnectionError
    write_roots(tmp_path / "fleet-roots.pem", FLEET, new)
    for shown in (before, after):
        reply = await world.ask(await world.over_tls(shown))
        assert reply is not None and reply.status == 200


async def test_roots_that_are_gone_let_nobody_in(world: ChannelWorld, tmp_path: Path):
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    (tmp_path / "fleet-roots.pem").write_text("")
    with pytest.raises(OSError):
        stream = await world.over_tls(shown)
        if await world.ask(stream) is None:
            raise ConnectionError
    world.nothing_left()


async def test_a_handshake_that_does_not_end_is_cut(tmp_path: Path):
    deadlines = replace(DEADLINES, handshake_s=0.2)
    async with channel_world(tmp_path, worker_tls(tmp_path), deadlines) as world:
        where = world.harness.proxy.channels.worker_tls_address
        assert where is not None
        reader, writer = await asyncio.open_connection(*where)
        world.writers.append(writer)
        writer.write(b"\x16\x03\x01")
        assert await read_to_end(reader) == b""


async def test_who_only_looks_whether_somebody_listens_is_in_no_log(world: ChannelWorld):
    where = world.harness.proxy.channels.worker_tls_address
    assert where is not None
    for sent in (b"", b"\x16\x03\x01"):
        _, writer = await asyncio.open_connection(*where)
        writer.write(sent)
        writer.close()
        await writer.wait_closed()
    await until(
        "no handshake is open", lambda: not world.harness.proxy.channels.worker_tls.handshakes
    )
    assert world.harness.verdicts() == []


@pytest.mark.parametrize("content", ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_without_roots_is_told(tmp_path: Path, content: str):
    path = tmp_path / "roots.pem"
    path.write_text(content)
    with pytest.raises(WorkerRootsError, match=r"roots.pem: .*expected"):
        read_roots(path)


async def test_nobody_gets_in_while_others_may_write_the_fleets_roots(
    world: ChannelWorld, tmp_path: Path
):
    """Also where the folder was opened, and nothing of the file has changed."""
    shown = certificate_for(tmp_path)
    world.rebind(shown.fingerprint)
    roots = tmp_path / "fleet-roots.pem"
    for opened, ours, others in ((roots, 0o644, 0o666), (tmp_path, 0o700, 0o777)):
        opened.chmod(others)
        with pytest.raises((OSError, ssl.SSLError)):
            await world.over_tls(shown)
        problem = world.harness.proxy.channels.problem or ""
        assert f"mode {others:o}" in problem and f"chmod go-w {opened}" in problem
        opened.chmod(ours)
        reply = await world.ask(await world.over_tls(shown))
        assert reply is not None and reply.status == 200


async def test_a_plain_request_to_the_tls_listener_is_cut(world: ChannelWorld):
    where = world.harness.proxy.channels.worker_tls_address
    assert where is not None
    reader, writer = await asyncio.open_connection(*where)
    world.writers.append(writer)
    writer.write(world.request(basic()))
    await read_to_end(reader)
    world.nothing_left()


async def test_the_tls_listener_is_never_a_target(world: ChannelWorld):
    where = world.harness.proxy.channels.worker_tls_address
    assert where is not None
    assert where in world.harness.core.service._forbidden
