"""The command line against a fleet that runs in a process of its own."""

import base64
import json
import signal
import stat

import pytest
from ulid import ULID

from palyra_fleet.wire.keys import SigningKey
from tests.fakes.receipt_proxy import receipt_proxy
from tests.fleet.cli.conftest import Shell

GRANT = ("grant", "create", "run-1", "--tool", "sh", "--principal", "ops", "--profile", "default")


async def enrol_everything(served: Shell, proxy_key: SigningKey, program: str) -> None:
    public_key = base64.b64encode(proxy_key.public_key).decode()
    assert (await served("proxy", "enrol", "proxy-1", public_key)).code == 0
    made = await served("launcher", "key", str(served.home / "launcher.pem"))
    assert (await served("launcher", "enrol", "launcher-1", made.out.strip())).code == 0
    assert (await served("reference", "add", "--measure", program)).code == 0
    assert (await served(*GRANT)).code == 0


def run_command(served: Shell, proxy: str, *program: str) -> tuple[str, ...]:
    ca = str(served.home / "ca.pem")
    return (
        *("worker", "run", "--proxy", proxy, "--run-id", "run-1"),
        *("--launcher-key", str(served.home / "launcher.pem")),
        *("--ca-bundle", ca, "--ca", ca, "--", *program),
    )


async def test_serve_writes_where_it_is_and_a_token_only_its_owner_may_read(served: Shell) -> None:
    token = served.home / "operator.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert (served.home / "admin.url").read_text().startswith("http://127.0.0.1:")
    socket = served.home / "run" / "fleet.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


async def test_a_second_fleet_on_the_same_state_does_not_start(served: Shell) -> None:
    said = await served("serve", "--admin", "127.0.0.1:0", "--socket", str(served.home / "x" / "s"))
    assert said.code == 2
    assert "the fleet does not start" in said.err


async def test_a_program_runs_as_a_worker_and_its_exit_code_is_ours(served: Shell) -> None:
    proxy_key = SigningKey.generate()
    await enrol_everything(served, proxy_key, "sh")
    async with receipt_proxy(proxy_key) as proxy:
        script = 'printf "%s" "$NO_PROXY$PALYRA_RUN_ID"; exit 9'
        said = await served(*run_command(served, proxy.address, "sh", "-c", script))
    # this proxy never beats, which the fleet may notice before a slow machine has run the program
    chatter = [line for line in said.err.splitlines() if "does not hear" not in line]
    assert (said.code, said.out, chatter) == (9, "run-1", [])
    listed = await served("worker", "list", "-o", "json")
    (worker,) = json.loads(listed.out)
    assert worker["state"] == "available"
    assert json.loads((await served("worker", "list", "--waits", "-o", "json")).out) == []
    verified = await served("event", "verify")
    assert verified.code == 0
    assert verified.out.endswith("entries, whole\n")


async def test_a_signal_to_the_command_reaches_the_program(served: Shell) -> None:
    proxy_key = SigningKey.generate()
    await enrol_everything(served, proxy_key, "sh")
    async with receipt_proxy(proxy_key) as proxy:
        script = "echo up; exec sleep 600"
        process = await served.start(*run_command(served, proxy.address, "sh", "-c", script))
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert b"interrupted by SIGINT; ending the run" in err.splitlines()


async def test_an_operator_stops_a_running_worker_from_the_command_line(served: Shell) -> None:
    proxy_key = SigningKey.generate()
    await enrol_everything(served, proxy_key, "sh")
    async with receipt_proxy(proxy_key) as proxy:
        command = run_command(served, proxy.address, "sh", "-c", "echo up; exec sleep 600")
        process = await served.start(*command)
        assert process.stdout is not None
        await process.stdout.readline()
        (worker,) = json.loads((await served("worker", "list", "-o", "json")).out)
        worker_id = worker["worker_id"]
        (lease,) = json.loads((await served("lease", "list", "-o", "json")).out)
        assert (lease["worker_id"], lease["run_id"]) == (worker_id, "run-1")
        assert (lease["state"], lease["egress_profile"]) == ("busy", "default")
        assert lease["lease_id"] in (await served("lease", "list", "--limit", "1")).out
        said = await served("worker", "quarantine", worker_id, "--reason", "looks wrong")
        assert said.code == 0
        assert "quarantined" in said.out
        _, err = await process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert b"this worker was quarantined" in err
    refused = await served("worker", "release", worker_id, "--reason", "too early")
    assert refused.code == 1
    assert refused.err.startswith("palyra-fleet: the fleet refused\n  why: ")
    reverified = await served("worker", "reverify", worker_id, "--reason", "no way round")
    assert reverified.code == 1
    assert "reverifying does not release it" in reverified.err
    assert (await served("worker", "show", worker_id)).out.count("\n") > 10
    tail = await served("event", "tail", "--lines", "3", "-o", "json")
    assert len(json.loads(tail.out)) == 3


async def test_grants_are_listed_and_withdrawn(served: Shell) -> None:
    made = json.loads((await served(*GRANT, "-o", "json")).out)
    assert made["run_id"] == "run-1"
    listed = await served("grant", "list")
    assert made["grant_id"] in listed.out
    assert (await served("grant", "withdraw", made["grant_id"], "--reason", "no")).code == 0
    again = await served("grant", "withdraw", str(ULID()), "--reason", "no")
    assert again.code == 1


@pytest.mark.parametrize(
    "arguments",
    [("worker", "list"), ("lease", "list"), ("violation", "list"), ("grant", "list")],
    ids=" ".join,
)
async def test_an_empty_list_is_empty_on_stdout(served: Shell, arguments: tuple[str, ...]) -> None:
    said = await served(*arguments)
    assert (said.code, said.out, said.err) == (0, "", "none\n")
    assert json.loads((await served(*arguments, "-o", "json")).out) == []


async def test_a_wrong_token_is_yours_to_fix(served: Shell) -> None:
    wrong = served.home / "wrong.token"
    wrong.write_text("x" * 43)
    said = await served("worker", "list", "--token-file", str(wrong))
    assert said.code == 2
    assert "did not accept the credentials" in said.err
    assert "x" * 43 not in said.err


async def test_what_the_fleet_does_not_know_is_a_no(served: Shell) -> None:
    said = await served("worker", "show", str(ULID()))
    assert said.code == 1
    assert "[worker.unknown]" in said.err


async def test_nobody_at_the_address_is_unreachable(shell: Shell) -> None:
    token = shell.home / "operator.token"
    token.write_text("x" * 43)
    said = await shell("worker", "list", "--url", "http://127.0.0.1:9")
    assert said.code == 69
    assert [line[:6] for line in said.err.splitlines()][1:] == ["  why:", "  do: "]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "NOUN"),
        (("worker", "list"), "admin.sock"),
        (("worker", "show", "not-an-id"), "expected an id"),
        (("worker", "quarantine", "01ARZ3NDEKTSV4RRFFQ69G5FAV"), "--reason"),
        (
            ("worker", "drain", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--reason", "r", "--within-s", "0"),
            "1",
        ),
        (("proxy", "enrol", "UPPER", "x"), "lower-case name"),
        (("launcher", "enrol", "name", "x"), "base64"),
        (("serve", "--admin", "0.0.0.0:7741"), "loopback"),
        (("serve", "--admin", "nowhere"), "HOST:PORT"),
        (("serve", "--admin", "127.0.0.1:70000"), "HOST:PORT"),
        (("reference", "add", "--image", "ABC"), "hex"),
    ],
)
async def test_a_mistake_in_the_command_is_yours_to_fix(
    shell: Shell, arguments: tuple[str, ...], word: str
) -> None:
    said = await shell(*arguments)
    assert (said.code, said.out) == (2, "")
    assert word in said.err


async def test_a_missing_program_is_yours_to_fix(shell: Shell) -> None:
    key = str(shell.home / "launcher.pem")
    await shell("launcher", "key", key)
    assert (await shell(*run_command(shell, "127.0.0.1:9"))).code == 2
    said = await shell(*run_command(shell, "127.0.0.1:9", "no-such-program"))
    assert said.code == 2
    assert "no-such-program" in said.err


async def test_arguments_of_the_program_are_its_own_even_if_they_look_like_ours(
    served: Shell,
) -> None:
    proxy_key = SigningKey.generate()
    await enrol_everything(served, proxy_key, "sh")
    async with receipt_proxy(proxy_key) as proxy:
        program = ("sh", "-c", 'printf "%s|" "$@"', "name", "--proxy", "x", "--", "-h", "")
        said = await served(*run_command(served, proxy.address, *program))
    assert (said.code, said.out) == (0, "--proxy|x|--|-h||")


async def test_a_principal_is_made_used_and_revoked_from_the_command_line(served: Shell) -> None:
    made = await served("principal", "create", "vera", "--role", "viewer", "--reason", "on call")
    assert (made.code, len(made.out.strip())) == (0, 43)
    assert made.err == "the token of vera; it is not shown again\n"
    token = served.home / "vera.token"
    token.write_text(made.out)
    as_vera = ("--token-file", str(token))
    who = json.loads((await served("principal", "self", "-o", "json", *as_vera)).out)
    assert who == {"name": "vera", "roles": ["viewer"]}
    refused = await served(*GRANT, *as_vera)
    assert refused.code == 1
    assert "it takes the role approver [api.role_refused]" in refused.err
    listed = json.loads((await served("principal", "list", "-o", "json")).out)
    assert [one["name"] for one in listed] == ["operator", "vera"]
    assert (await served("principal", "revoke", "vera", "--reason", "left")).code == 0
    assert (await served("principal", "self", *as_vera)).code == 2
