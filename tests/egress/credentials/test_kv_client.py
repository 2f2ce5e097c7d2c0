"""Mirror of credentials/kv_client.py, against a real HTTP server with faults."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from palyra_egress.credentials import kv_client
from palyra_egress.credentials.kv_client import (
    KvClient,
    KvFailure,
    KvMissing,
    KvSecret,
    KvSettingsRefused,
)
from palyra_egress.credentials.kv_settings import KvSettings
from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_fleet.trusted_files import read_trusted
from tests.egress.credentials.moving_time import START_UNIX_MS
from tests.fakes.kv_server import (
    TOKEN,
    Fault,
    KvServer,
    cut_short,
    endless,
    kv_server,
    no_http,
    object_of,
    silent,
    status,
    text,
)

FIELDS = {"token": "kv-SECRET-value", "count": 3}


@pytest.fixture
async def server() -> AsyncIterator[KvServer]:
    async with kv_server() as running:
        running.secrets = {"secret/team/github": FIELDS, "kv1/old": FIELDS}
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    write(tmp_path / "token", TOKEN + "\n")
    return tmp_path / "token"


def write(file: Path, content: str, mode: int = 0o600) -> None:
    file.write_text(content)
    file.chmod(mode)


async def fetch(settings: KvSettings, mount: str = "secret", path: str = "team/github") -> KvSecret:
    client = KvClient(settings)
    try:
        return await client.fetch(mount, path, START_UNIX_MS)
    finally:
        await client.close()


def of(server: KvServer, token_file: Path, deadline_s: float = 5.0) -> KvSettings:
    return KvSettings(
        server.url, token_file, version_1_mounts=frozenset({"kv1"}), deadline_s=deadline_s
    )


async def test_a_version_2_mount_gives_the_newest_text_fields(
    server: KvServer, token_file: Path
) -> None:
    found = await fetch(of(server, token_file))
    assert (found.fields, found.lives_ms) == ({"token": "kv-SECRET-value"}, None)
    assert server.asked == ["/v1/secret/data/team/github"]
    assert "SECRET" not in repr(found)


async def test_a_version_1_mount_gives_fields_and_their_lease(
    server: KvServer, token_file: Path
) -> None:
    server.lease_duration_s = 90
    found = await fetch(of(server, token_file), "kv1", "old")
    assert (found.fields, found.lives_ms) == ({"token": "kv-SECRET-value"}, 90_000)
    assert server.asked == ["/v1/kv1/old"]


async def test_a_version_that_will_be_deleted_lives_until_then(
    server: KvServer, token_file: Path
) -> None:
    server.deletion_time = "2027-01-15T08:01:00.5Z"  # a minute after the tests' beginning
    assert (await fetch(of(server, token_file))).lives_ms == 60_500
    server.deletion_time = "2027-01-15T07:59:59Z"
    with pytest.raises(KvMissing, match="has ended"):
        await fetch(of(server, token_file))


async def test_what_was_deleted_or_destroyed_is_missing(server: KvServer, token_file: Path) -> None:
    server.destroyed = True
    with pytest.raises(KvMissing, match="deleted or destroyed"):
        await fetch(of(server, token_file))
    server.secrets.clear()
    with pytest.raises(KvMissing, match="no such secret, or it was deleted"):
        await fetch(of(server, token_file))


async def test_the_namespace_is_sent(server: KvServer, token_file: Path) -> None:
    await fetch(KvSettings(server.url, token_file, namespace="team-a"))
    assert server.namespaces == ["team-a"]


async def test_the_token_is_read_for_every_question(server: KvServer, token_file: Path) -> None:
    client = KvClient(of(server, token_file))
    await client.fetch("secret", "team/github", START_UNIX_MS)
    server.token = "hvs.rotated-token-987654"
    with pytest.raises(KvFailure, match="the server refused the token"):
        await client.fetch("secret", "team/github", START_UNIX_MS)
    write(token_file, server.token)
    await client.fetch("secret", "team/github", START_UNIX_MS)
    await client.close()


async def test_a_token_that_cannot_be_read_is_told(server: KvServer, token_file: Path) -> None:
    write(token_file, TOKEN, 0o604)
    with pytest.raises(KvFailure, match=r"the token: .*token: mode 604 is too open"):
        await fetch(of(server, token_file))
    with pytest.raises(KvFailure, match=r"the token: .*absent: cannot be read: No such file"):
        await fetch(of(server, token_file.with_name("absent")))
    assert server.asked == [] and server.refused_tokens == 0


_ECHO = '{"data": "kv-SECRET-value'
FAULTS: list[tuple[Fault, str]] = [
    (status(400), "the server refused the question (400)"),
    (status(403, _ECHO), "the server refused the token (403)"),
    (status(429), "standby"),
    (status(500, _ECHO), "the server answered 500"),
    (status(503), "sealed or down (503)"),
    (status(307, Location="http://127.0.0.1:1/"), "redirect (307); name the active node"),
    (status(204, ""), "the server answered 204"),
    (text(""), "no JSON object"),
    (text(_ECHO), "no JSON object"),
    (text("[" * 90_000), "no JSON object"),
    (text("\xff\xfe"), "no JSON object"),
    (text("[1]"), "no JSON object"),
    (text("{}"), "not one of a KV engine"),
    (object_of({"data": {"token": "kv-SECRET-value"}}), "is the mount another version?"),
    (object_of({"data": {"data": "kv-SECRET", "metadata": {}}}), "not one of a KV engine"),
    (
        object_of({"data": {"data": {}, "metadata": {"deletion_time": "soon"}}}),
        "not one of a KV engine",
    ),
    (
        object_of({"data": {"data": {}, "metadata": {"deletion_time": "2030-01-01"}}}),
        "not one of a KV engine",
    ),
    (status(200, "\x1f\x8b", **{"Content-Encoding": "gzip"}), "no JSON object"),
    (endless, "larger than 262144 bytes"),
    (cut_short, "cannot be reached"),
    (no_http, "cannot be reached"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS)
async def test_a_fault_is_told_without_any_of_the_answer(
    server: KvServer, token_file: Path, fault: Fault, said: str
) -> None:
    server.fault = fault
    with pytest.raises(KvFailure) as caught:
        await fetch(of(server, token_file))
    assert said in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:  # nothing behind it holds an answer or the token either
        assert "SECRET" not in repr(error) + str(vars(error)) and TOKEN not in repr(error)
        error = error.__cause__ or error.__context__


async def test_a_silent_server_costs_the_deadline_and_no_more(
    server: KvServer, token_file: Path
) -> None:
    server.fault = silent
    with pytest.raises(KvFailure, match=r"no answer within 0\.1 s"):
        await fetch(of(server, token_file, deadline_s=0.1))


async def test_a_server_that_is_not_there_is_told(token_file: Path) -> None:
    with pytest.raises(KvFailure, match="cannot be reached"):
        await fetch(KvSettings("http://127.0.0.1:1", token_file))


async def test_tls_is_verified_against_the_named_ca(tmp_path: Path, token_file: Path) -> None:
    ours, other = UpstreamCa.create(tmp_path / "ours"), UpstreamCa.create(tmp_path / "other")
    async with kv_server(ours.server_context("127.0.0.1")) as server:
        server.secrets = {"secret/team/github": FIELDS}
        found = await fetch(KvSettings(server.url, token_file, ours.ca_file))
        assert found.fields["token"] == "kv-SECRET-value"
        for ca_file in (other.ca_file, None):
            with pytest.raises(KvFailure, match="certificate does not verify"):
                await fetch(KvSettings(server.url, token_file, ca_file))
    async with kv_server(ours.server_context("elsewhere.example")) as server:
        with pytest.raises(KvFailure, match="certificate does not verify"):
            await fetch(KvSettings(server.url, token_file, ours.ca_file))
        assert server.asked == [] and server.refused_tokens == 0


async def test_proxy_variables_lead_nowhere(
    server: KvServer, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await fetch(of(server, token_file))).fields


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://vault.example:8200", "the token would travel in clear"),
        ("http://localhost:8200", "the token would travel in clear"),
        ("http://10.0.0.1", "the token would travel in clear"),
        ("https://user:hunter2@vault.example", "holds credentials"),
        ("https://vault.example/v1", "expected https://HOST"),
        ("https://vault.example?x=1", "expected https://HOST"),
        ("ftp://vault.example", "expected https://HOST"),
        ("vault.example:8200", "expected https://HOST"),
        ("https://", "expected https://HOST"),
        ("https://vault.example:99999", "is no URL"),
        ("https://[::1", "is no URL"),
    ],
)
def test_an_address_that_is_not_safe_is_refused(token_file: Path, url: str, said: str) -> None:
    with pytest.raises(KvSettingsRefused) as caught:
        KvClient(KvSettings(url, token_file))
    assert said in str(caught.value) and "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8200", "http://[::1]:8200/", "https://v.example"]
)
def test_an_address_that_is_safe_is_taken(token_file: Path, url: str) -> None:
    KvClient(KvSettings(url, token_file))


def test_a_ca_file_without_certificates_is_refused(token_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "absent.pem"):
        with pytest.raises(KvSettingsRefused, match="holds no certificates"):
            KvClient(KvSettings("https://v.example", token_file, tmp_path / name))


def test_a_ca_file_that_others_may_write_is_refused(token_file: Path, tmp_path: Path) -> None:
    file = UpstreamCa.create(tmp_path / "ca").ca_file
    KvClient(KvSettings("https://v.example", token_file, file))
    file.chmod(0o664)
    with pytest.raises(KvSettingsRefused, match=f"--kv-ca: {file}: mode 664 lets others write"):
        KvClient(KvSettings("https://v.example", token_file, file))


async def test_what_is_trusted_is_what_was_looked_at(
    tmp_path: Path, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file is put in the place of the CA file right after the look at it."""
    ours, other = UpstreamCa.create(tmp_path / "ours"), UpstreamCa.create(tmp_path / "other")

    def look_and_be_overtaken(path: Path, max_bytes: int) -> object:
        found = read_trusted(path, max_bytes)
        path.write_bytes(other.ca_file.read_bytes())
        return found

    ours.ca_file.write_text(f"# für den Tresor\n{ours.ca_file.read_text()}")
    monkeypatch.setattr(kv_client, "read_trusted", look_and_be_overtaken)
    async with kv_server(ours.server_context("127.0.0.1")) as server:
        server.secrets = {"secret/team/github": FIELDS}
        assert (await fetch(KvSettings(server.url, token_file, ours.ca_file))).fields
