"""The webhook: signed as receivers check it, and bounded whatever a receiver does."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.exports.receiver import Undelivered
from palyra_fleet.exports.trust import client_context
from palyra_fleet.exports.webhook import (
    SecretFileError,
    Webhook,
    body_of,
    headers_of,
    read_secrets,
)
from palyra_fleet.signals.export_counts import ExportProblem
from tests.fakes.scripted_server import scripted_server
from tests.fakes.siem import SECRET, SECRET_LINE, entries, siem, status, write_secret

SHORT_S = 0.3


async def problem_of(webhook: Webhook) -> ExportProblem:
    with pytest.raises(Undelivered) as refused:
        await webhook.deliver(entries(2))
    await webhook.close()
    return refused.value.problem


def to(url: str, folder: Path, within_s: float = 10.0, **more: Any) -> Webhook:
    secret = write_secret(folder / "secret")
    return Webhook(url, secret, more.pop("tls", None), within_s=within_s, **more)


def test_the_signature_is_what_openssl_makes_of_id_time_and_body() -> None:
    body = body_of(entries(2))
    headers = headers_of(body, [SECRET], 1_795_000_000)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = f"hexkey:{SECRET.hex()}"
    mac = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", key, "-binary"]
    made = subprocess.run(mac, input=signed, capture_output=True, check=True).stdout
    encoded = subprocess.run(["base64", "-w0"], input=made, capture_output=True, check=True).stdout
    assert headers["webhook-signature"] == f"v1,{encoded.decode()}"


def test_the_same_events_have_the_same_id_and_others_another() -> None:
    log = entries(4)
    ids = [headers_of(body_of(one), [SECRET], 1)["webhook-id"] for one in (log, log[:2], log)]
    assert ids[0] == ids[2] != ids[1]


async def test_events_arrive_signed_over_tls_that_is_verified(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with siem(ca.server_context("localhost")) as receiver:
        webhook = to(receiver.url, tmp_path, tls=client_context(ca.ca_file))
        await webhook.deliver(entries(3))
        await webhook.deliver(entries(3))
        await webhook.close()
        assert (receiver.sequences, receiver.unsigned) == ([1, 2, 3] * 2, 0)
        assert receiver.taken[2]["event.action"] == "worker.quarantined_by_egress"
        strangers = to(receiver.url, tmp_path, tls=client_context(None))
        assert await problem_of(strangers) is ExportProblem.UNTRUSTED
    async with siem(ca.server_context("other.example")) as impostor:
        webhook = to(impostor.url, tmp_path, tls=client_context(ca.ca_file))
        assert await problem_of(webhook) is ExportProblem.UNTRUSTED
        assert impostor.asked == 0


async def test_a_secret_is_changed_by_overlap_without_a_restart(tmp_path: Path) -> None:
    other = "whsec_" + "QUJD" * 8
    async with siem() as receiver:
        webhook = to(receiver.url, tmp_path)
        await webhook.deliver(entries(1))
        write_secret(tmp_path / "secret", other, SECRET_LINE)
        await webhook.deliver(entries(1))
        assert receiver.unsigned == 0
        write_secret(tmp_path / "secret", other)
        assert await problem_of(webhook) is ExportProblem.REFUSED
        assert receiver.unsigned == 1


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (302, ExportProblem.REFUSED),
        (400, ExportProblem.REFUSED),
        (410, ExportProblem.REFUSED),
        (413, ExportProblem.TOO_LARGE),
        (429, ExportProblem.FAILED),
        (500, ExportProblem.FAILED),
        (599, ExportProblem.FAILED),
    ],
)
async def test_only_2xx_is_taken(code: int, problem: ExportProblem, tmp_path: Path) -> None:
    async with siem() as receiver, siem() as elsewhere:
        receiver.answer = status(code, Location=elsewhere.url)
        assert await problem_of(to(receiver.url, tmp_path)) is problem
        assert elsewhere.asked == 0  # a redirect is not followed


async def test_what_comes_after_the_status_is_not_waited_for(tmp_path: Path) -> None:
    """A receiver that says 200 and then sends without an end."""
    sent = 0

    async def without_end(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=200)
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
                sent += 65_536
        except OSError:
            return response

    async with siem() as receiver:
        receiver.answer = without_end
        webhook = to(receiver.url, tmp_path)
        await webhook.deliver(entries(1))
        await webhook.deliver(entries(1))
        await webhook.close()
        assert receiver.asked == 2
    assert sent < 64 * 1024 * 1024  # what fits into buffers, of 10 GB that it would have sent


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "problems"),
    [
        (b"", {ExportProblem.LATE}),  # reads, and says nothing
        (HEAD, {ExportProblem.LATE}),  # never ends its head
        (b"\x16\x03\x01nonsense\r\n\r\n", {ExportProblem.FAILED, ExportProblem.UNREACHABLE}),
        (HEAD + b"X: " + b"x" * 100_000, {ExportProblem.FAILED, ExportProblem.UNREACHABLE}),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, {ExportProblem.LATE}),
    ],
)
async def test_a_receiver_that_hangs_or_talks_nonsense_is_given_up(
    answer: bytes, problems: set[ExportProblem], tmp_path: Path
) -> None:
    async with scripted_server(answer) as server:
        url = f"http://127.0.0.1:{server.port}/events"
        assert await problem_of(to(url, tmp_path, within_s=SHORT_S)) in problems


async def test_nobody_there_and_no_secret_are_told_apart(tmp_path: Path) -> None:
    assert await problem_of(to("http://127.0.0.1:9/", tmp_path)) is ExportProblem.UNREACHABLE
    webhook = to("http://127.0.0.1:9/", tmp_path)
    (tmp_path / "secret").chmod(0o644)
    assert await problem_of(webhook) is ExportProblem.SECRET


async def test_the_environment_names_no_proxy_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with siem() as receiver, siem() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        webhook = to(receiver.url, tmp_path)
        await webhook.deliver(entries(1))
        await webhook.close()
        assert (receiver.asked, proxy.asked) == (1, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected one secret a line"),
        ("whsec_c2hvcnQ=\n", ":1: expected whsec_ and base64 of 24 to 64 bytes"),
        (f"{SECRET_LINE}\nwhsec_!!!\n", ":2: expected whsec_"),
        (SECRET_LINE.removeprefix("whsec_"), ":1: expected whsec_"),
        (f"{SECRET_LINE}\n" * 5, "at most 4"),
        ("whsec_\u00e9", "is not text"),
        ("x" * 2_000, "larger than"),
    ],
)
def test_a_secret_file_that_cannot_be_used_says_why_and_nothing_of_it(
    text: str, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(SecretFileError, match=expected) as refused:
        read_secrets(file)
    assert SECRET_LINE[6:] not in str(refused.value) and "c2hvcnQ" not in str(refused.value)
