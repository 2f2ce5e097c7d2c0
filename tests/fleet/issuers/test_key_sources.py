"""Keys from a real issuer over real TLS, and everything an issuer may answer instead."""

import json
import os
from pathlib import Path

import pytest
from aiohttp import web

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.issuers.key_sources import MAX_BYTES, KeysUnreadable, read_keys
from palyra_fleet.issuers.trusted import TrustedIssuer, checked_https
from tests.fakes.scripted_server import scripted_server
from tests.fakes.token_issuer import AUDIENCE, DISCOVERY, KEYS, TokenIssuer, served_issuer


def trusting(issuer: TokenIssuer, ca_file: Path | None) -> TrustedIssuer:
    return TrustedIssuer("corp", issuer.url, AUDIENCE, ca_file=ca_file)


async def problem_of(trusted: TrustedIssuer, within_s: float = 60.0) -> str:
    with pytest.raises(KeysUnreadable) as caught:
        await read_keys(trusted, within_s)
    return str(caught.value)


async def test_discovery_leads_to_the_keys_over_verified_tls(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with served_issuer(ca.server_context("localhost")) as issuer:
        assert set(await read_keys(trusting(issuer, ca.ca_file))) == {"key-1"}
        assert issuer.asked == ["/team" + DISCOVERY, KEYS]
        assert "not trusted" in await problem_of(trusting(issuer, None))
        assert len(issuer.asked) == 2
    async with served_issuer(ca.server_context("other.example")) as impostor:
        assert "not trusted" in await problem_of(trusting(impostor, ca.ca_file))
        assert impostor.asked == []
    assert "cannot be reached" in await problem_of(trusting(impostor, ca.ca_file))


def said(content: object) -> web.Response:
    return web.Response(text=json.dumps(content))


ABOUT, SET = "/team" + DISCOVERY, KEYS
ANSWERS = [
    (ABOUT, web.Response(status=302, headers={"Location": KEYS}), "answered 302"),
    (ABOUT, web.Response(status=500), "answered 500"),
    (ABOUT, web.Response(text="secret-text"), "is not JSON"),
    (ABOUT, web.Response(text="[" * 100_000), "is not JSON"),
    (ABOUT, said([]), "is not a JSON object"),
    (ABOUT, said({"issuer": "https://other.example"}), "names another issuer"),
    (ABOUT, web.Response(body=b" " * (MAX_BYTES + 1)), "is larger than"),
    (SET, web.Response(status=404), "answered 404"),
    (SET, said({"keys": []}), "its jwks_uri: expected a JSON Web Key Set"),
    (SET, said({"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]}), "secret or private"),
    (SET, web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "is not JSON"),
]


@pytest.mark.parametrize(("path", "answer", "expected"), ANSWERS)
async def test_what_is_not_a_whole_good_answer_gives_no_keys(
    path: str, answer: web.Response, expected: str, tmp_path: Path
) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with served_issuer(ca.server_context("localhost")) as issuer:
        issuer.answers[path] = answer
        problem = await problem_of(trusting(issuer, ca.ca_file))
        assert expected in problem
        assert "secret-text" not in problem
        assert "c2VjcmV0" not in problem


@pytest.mark.parametrize("jwks_uri", [None, 7, "http://localhost/keys", "file:///etc/passwd", ""])
async def test_keys_are_asked_for_over_https_only(jwks_uri: object, tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with served_issuer(ca.server_context("localhost")) as issuer:
        issuer.answers[ABOUT] = said({"issuer": issuer.url, "jwks_uri": jwks_uri})
        assert "no https address" in await problem_of(trusting(issuer, ca.ca_file))
        assert issuer.asked == [ABOUT]


async def test_an_issuer_that_never_ends_its_answer_is_left(tmp_path: Path) -> None:
    ca = UpstreamCa.create(tmp_path / "ca")
    async with scripted_server(
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", tls=ca.server_context("localhost")
    ) as server:
        trusted = TrustedIssuer(
            "corp", f"https://localhost:{server.port}", AUDIENCE, None, ca.ca_file
        )
        assert "no whole answer within" in await problem_of(trusted, 0.5)


async def test_keys_of_a_file(tmp_path: Path) -> None:
    issuer, file = TokenIssuer(), tmp_path / "jwks.json"
    trusted = TrustedIssuer("corp", issuer.url, AUDIENCE, file)
    assert "cannot be read: No such file" in await problem_of(trusted)
    file.write_text(json.dumps(issuer.key_set()))
    assert set(await read_keys(trusted)) == {"key-1"}
    file.write_bytes(b" " * (MAX_BYTES + 1))
    assert "is larger than" in await problem_of(trusted)
    file.unlink()
    os.mkfifo(file)
    assert "not a regular file" in await problem_of(trusted)  # and nobody waits for a writer


async def test_files_that_others_may_write_are_not_gone_by(tmp_path: Path) -> None:
    ca, file = UpstreamCa.create(tmp_path / "ca"), tmp_path / "jwks.json"
    async with served_issuer(ca.server_context("localhost")) as issuer:
        file.write_text(json.dumps(issuer.key_set()))
        kept = TrustedIssuer("corp", issuer.url, AUDIENCE, file)
        for trusted, path in ((kept, file), (trusting(issuer, ca.ca_file), ca.ca_file)):
            assert set(await read_keys(trusted)) == {"key-1"}
            path.chmod(0o666)
            assert "lets others write to it" in await problem_of(trusted)
            path.chmod(0o600)
        file.parent.chmod(0o777)
        assert "can put another file in its place" in await problem_of(kept)


@pytest.mark.parametrize(
    "text",
    [
        "http://issuer.example",
        "https://",
        "https:///path",
        "https://user@issuer.example",
        "https://issuer.example?x=1",
        "https://issuer.example#x",
        "https://issuer.example:99999",
        "https://issuer.example:0",
        "https://issuer.example/a b",
        "https://issuer.example\\@evil.example",
        "https://[::1",
        "",
    ],
)
def test_an_address_that_is_not_plainly_https_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected https"):
        checked_https(text)
