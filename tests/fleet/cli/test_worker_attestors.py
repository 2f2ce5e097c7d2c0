"""Workers that prove themselves otherwise than by a launcher, as commands of real programs."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.wire.keys import SigningKey
from tests.fakes.attestation_material import NOW, MachinePlan, X509Prover
from tests.fakes.receipt_proxy import receipt_proxy
from tests.fleet.cli.conftest import Shell
from tests.fleet.cli.test_commands import enrol_everything

SETTINGS = """
[attestors.join_token]
[attestors.x509pop]
ca_files = ["ca.pem"]
[[attestors.x509pop.admit]]
uri = "spiffe://example.org/machine/one"
"""


def make_machine(home: Path) -> None:
    """An authority, and a certificate that is good now."""
    prover = X509Prover()
    age = now_unix_ms() / 1000 - NOW.timestamp()
    plan = MachinePlan()
    plan.begins += type(plan.begins)(seconds=age)
    plan.ends += type(plan.ends)(seconds=age)
    certificate = plan.issue(prover.ca_key, prover.ca)
    (home / "ca.pem").write_bytes(prover.ca.public_bytes(Encoding.PEM))
    (home / "machine.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = plan.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home / "machine-key.pem").write_bytes(pem)
    (home / "fleet.toml").write_text(SETTINGS)


def run(shell: Shell, proxy: str, *how: str) -> tuple[str, ...]:
    ca = str(shell.home / "ca.pem")
    return (
        *("worker", "run", "--proxy", proxy, "--run-id", "run-1", *how),
        *("--ca-bundle", ca, "--ca", ca, "--", "sh", "-c", "exit 7"),
    )


def _without_silence(said: str) -> str:
    """What a worker said beside that the fleet does not hear the proxy: that of this test never
    speaks to it, which a slow machine has the time to notice."""
    return "".join(line for line in said.splitlines(True) if "the fleet does not hear" not in line)


async def test_a_certificate_and_a_join_token_let_programs_run(shell: Shell) -> None:
    await asyncio.to_thread(make_machine, shell.home)
    fleet = await shell.start(
        *("serve", "--admin", "127.0.0.1:0", "--settings", str(shell.home / "fleet.toml"))
    )
    assert fleet.stderr is not None
    while b"operator token" not in (line := await fleet.stderr.readline()):
        assert line, "the fleet ended"
    try:
        proxy_key = SigningKey.generate()
        await enrol_everything(shell, proxy_key, "sh")
        async with receipt_proxy(proxy_key) as proxy:
            files = (str(shell.home / "machine.pem"), str(shell.home / "machine-key.pem"))
            by_certificate = ("--certificate", files[0], "--certificate-key", files[1])
            said = await shell(*run(shell, proxy.address, *by_certificate))
            assert (said.code, _without_silence(said.err)) == (7, "")
            minted = await shell("join-token", "mint", "dev-1", "--reason", "a try")
            token = shell.home / "token"
            await asyncio.to_thread(token.write_text, minted.out)
            grant = ("--tool", "sh", "--principal", "ops", "--profile", "default")
            assert (await shell("grant", "create", "run-1", *grant)).code == 0
            by_token = ("--join-token-file", str(token), "--join-as", "dev-1")
            assert (await shell(*run(shell, proxy.address, *by_token))).code == 7
            again = await shell(*run(shell, proxy.address, *by_token))
            assert again.code == 1
            assert "the join token is unknown, used by another key" in again.err
        listed = json.loads((await shell("join-token", "list", "-o", "json")).out)
        assert [one["used_by_key_sha256"] is not None for one in listed] == [True]
        events = (await shell("event", "tail", "--lines", "50")).out
        assert minted.out.strip() not in events
    finally:
        fleet.send_signal(signal.SIGTERM)
        await fleet.communicate()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ((), "nobody vouches for this worker"),
        (("--launcher-key", "a", "--certificate", "b"), "not allowed with argument"),
        (("--certificate", "b"), "--certificate needs --certificate-key"),
        (("--join-token-file", "b"), "--join-token-file needs --join-as"),
        (("--service-account-token", "b"), "--service-account-token needs --cluster"),
    ],
)
async def test_exactly_one_way_to_be_vouched_for_is_named(
    shell: Shell, how: tuple[str, ...], said: str
) -> None:
    answer = await shell(*run(shell, "127.0.0.1:9", *how))
    assert answer.code == 2
    assert said in answer.err


async def test_a_path_to_hide_that_is_not_there_is_a_slip(shell: Shell) -> None:
    mistyped = shell.home / "secrts"
    token = ("--join-token-file", str(shell.home / "token"), "--join-as", "dev-1")
    hide = ("--isolate", "--hide", str(mistyped))
    said = await shell(*run(shell, "http://127.0.0.1:9", *token, *hide))
    assert (said.code, said.out) == (2, "")
    assert f"{mistyped}: there is nothing to hide" in said.err


async def test_a_mistake_in_the_settings_stops_the_start(shell: Shell) -> None:
    file = shell.home / "fleet.toml"
    await asyncio.to_thread(file.write_text, "[attestors.x509pop]\nca_files = []\n")
    said = await shell("serve", "--settings", str(file))
    assert said.code == 2
    assert f"{file}:2: attestors.x509pop.ca_files" in said.err
