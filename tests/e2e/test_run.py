"""`run` and `up` as a person at a terminal meets them: exit codes, interrupts, errors, clean-up."""

import asyncio
import signal
import sys
from urllib.parse import urlsplit

import pytest

from tests.e2e.place import METADATA_URL, Place, Puppet, ask_proxy, is_alive
from tests.e2e.programs import Program
from tests.e2e.upstreams import API
from tests.fakes.until import until

INTERRUPTS = [signal.SIGINT, signal.SIGTERM]


def error_lines(program_says: str) -> list[str]:
    """The lines of an error message, without log lines."""
    return [line for line in program_says.splitlines() if not line.startswith("WARNING")]


def assert_is_a_three_line_error(said: str, *, why: str) -> None:
    what, because, remedy = error_lines(said)
    assert what.startswith("palyra-egress: ")
    assert because.startswith("  why: ") and why in because
    assert remedy.startswith("  do:  ") and len(remedy) > len("  do:  ")


async def assert_nothing_is_held(place: Place, *, runs: int = 1) -> None:
    assert await place.workers() == ()  # a worker that was made for a run leaves with it
    async with place.operator() as operator:
        grants = await operator.grants()
    assert [grant.uses for grant in grants] == [1] * runs
    assert len(await place.events("worker.completed")) == runs


async def test_the_exit_code_of_the_program_is_the_exit_code_of_run(place: Place) -> None:
    await place.up()
    codes = [0, 7, 255]
    for code in codes:
        program = f"raise SystemExit({code})"
        done = await place.run_to_its_end("api", sys.executable, "-c", program)
        assert done.code == code
    await assert_nothing_is_held(place, runs=len(codes))


async def test_the_command_line_shows_that_nothing_is_held_after_a_run(place: Place) -> None:
    await place.up()
    done = await place.run_to_its_end("api", sys.executable, "-c", "")
    assert done.code == 0
    assert await place.fleet_json("worker", "list") == []
    (grant,) = await place.fleet_json("grant", "list")
    assert (grant["uses"], grant["max_uses"]) == (1, 1)
    reasons = [event["reason"] for event in await place.fleet_json("event", "tail")]
    assert reasons[-5:] == [
        "worker.registered",
        "worker.assigned",
        "worker.started",
        "worker.completed",
        "worker.evicted_by_operator",
    ]


async def test_a_program_that_dies_of_a_signal_gives_128_and_the_signal(place: Place) -> None:
    await place.up()
    kill_itself = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = await place.run_to_its_end("api", sys.executable, "-c", kill_itself)
    assert done.code == 128 + signal.SIGKILL
    await assert_nothing_is_held(place)


async def test_the_credential_is_dead_once_the_program_has_ended(place: Place) -> None:
    running = await place.up()
    puppet = await place.puppet("api")
    url = place.upstreams.url(API, "/open/thing")
    assert (await puppet.get(url))["status"] == 200
    assert await puppet.exit(0) == 0
    reply = await ask_proxy(running.proxy, url, puppet.proxy_url)
    assert reply is not None and (reply.status, reply.reason) == (403, "egress.no_lease")


@pytest.mark.parametrize("number", INTERRUPTS, ids=lambda number: number.name)
async def test_an_interrupt_of_run_ends_the_program_and_hands_the_lease_back(
    place: Place, number: signal.Signals
) -> None:
    await place.up()
    puppet = await place.puppet("api")
    assert puppet.is_alive()
    (worker,) = await place.workers()
    assert worker.lease_id is not None
    puppet.program.signal(number)
    code = await puppet.program.ended()
    assert code in {1, 128 + number}  # Python turns SIGINT into an exception of its own
    assert not puppet.is_alive()
    assert f"interrupted by {number.name}; ending the run" in puppet.program.err.text
    await assert_nothing_is_held(place)


async def test_a_program_that_ignores_the_interrupt_is_ended_all_the_same(place: Place) -> None:
    await place.up()
    stubborn = (
        "import json, os, signal, sys, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "print(json.dumps({'pid': os.getpid(), 'proxy': ''}), flush=True)\n"
        "sys.stdin.read()\n"
        "time.sleep(60)\n"
    )
    program = await place.run("api", sys.executable, "-c", stubborn, with_input=True)
    puppet = await Puppet.of(program)
    program.signal(signal.SIGINT)
    assert await program.ended() == 128 + signal.SIGKILL
    assert not puppet.is_alive()
    await assert_nothing_is_held(place)


async def test_run_without_a_proxy_says_what_to_do(place: Place) -> None:
    done = await place.run_to_its_end("api", sys.executable, "-c", "")
    assert done.code == 2
    assert_is_a_three_line_error(done.err, why="egress.json does not exist")
    assert done.out == ""


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--socks",), "does not listen for it"),
        (("--socks", "--isolate"), "leads to the HTTP proxy"),
    ],
)
async def test_socks_where_there_is_none_says_what_to_do(
    place: Place, options: tuple[str, ...], why: str
) -> None:
    await place.up()
    done = await place.run_to_its_end("api", sys.executable, "-c", "", options=options)
    assert done.code == 2
    assert why in done.err


async def test_run_after_the_proxy_was_stopped_says_that_it_is_unreachable(place: Place) -> None:
    running = await place.up()
    running.program.signal(signal.SIGTERM)
    assert await running.program.ended() == 0
    done = await place.run_to_its_end("api", sys.executable, "-c", "")
    assert done.code == 69
    assert_is_a_three_line_error(done.err, why="admin.sock does not exist")


async def test_run_of_a_program_that_is_not_there_says_so_and_grants_nothing(place: Place) -> None:
    await place.up()
    done = await place.run_to_its_end("api", "no-such-program-here")
    assert done.code == 2
    assert_is_a_three_line_error(done.err, why="no-such-program-here")
    assert await place.workers() == ()
    async with place.operator() as operator:
        assert await operator.grants() == ()


async def test_run_with_a_profile_the_policy_lacks_names_those_it_has_and_grants_nothing(
    place: Place,
) -> None:
    await place.up()
    done = await place.run_to_its_end("no-such-profile", "true")
    assert done.code == 2
    assert_is_a_three_line_error(done.err, why="it has api, api-isolated, api-net, git, packages")
    async with place.operator() as operator:
        assert await operator.grants() == ()


async def test_a_profile_that_the_policy_loses_is_refused_at_every_request(place: Place) -> None:
    await place.up()
    puppet = await place.puppet("packages")
    lines = place.policy_file.read_text().splitlines(keepends=True)
    place.policy_file.write_text("".join(one for one in lines if "packages: [" not in one))

    async def is_refused() -> bool:
        answer = await puppet.get(place.upstreams.url(API, "/open/thing"))
        return "403 Palyra: egress.profile_unknown" in answer["text"]

    await until("the profile is gone", is_refused)
    assert await puppet.exit(0) == 0


async def test_a_run_of_a_quarantined_worker_says_who_lets_it_in_and_leaves_no_approval(
    place: Place,
) -> None:
    await place.up()
    own = ("--worker-id", "01J0000000000000000000TVTR")
    violate = f"import urllib.request; urllib.request.urlopen({METADATA_URL!r})"
    await place.run_to_its_end("api", sys.executable, "-c", violate, options=own)
    again = await place.run_to_its_end("api", "true", options=own)
    assert again.code == 2
    assert "no run: the worker is quarantined" in again.err
    assert "`worker release` lets it in again" in again.err
    async with place.operator() as operator:
        newest, first = await operator.grants()
    assert (newest.uses, newest.withdrawn) == (0, True)
    assert (first.uses, first.withdrawn) == (1, False)


@pytest.mark.parametrize("number", INTERRUPTS, ids=lambda number: number.name)
async def test_an_interrupt_of_up_stops_in_order_and_frees_everything(
    place: Place, number: signal.Signals
) -> None:
    running = await place.up()
    socket_file = place.home / "run" / "fleet.sock"
    assert socket_file.exists()
    running.program.signal(number)
    assert await running.program.ended() == 0
    assert running.program.err.text.splitlines() == ["stopping", "stopped"]
    assert not socket_file.exists()
    await assert_can_listen_again(place, running.proxy, running.admin_url)


async def assert_can_listen_again(place: Place, proxy: str, admin_url: str) -> None:
    """The same ports can be taken by a new `up` on the same home."""
    program = await place.programs.start(
        *place.up_command(listen=urlsplit(proxy).netloc, admin=urlsplit(admin_url).netloc),
        environment=place.environment,
    )
    await program.says("Ctrl-C stops everything in order.")
    assert proxy in program.out.text


async def test_up_stops_while_a_worker_runs_and_the_worker_is_ended_by_itself(
    place: Place,
) -> None:
    """The proxy is gone, so the program has no network; its runtime must not wait for ever."""
    running = await place.up()
    puppet = await place.puppet("api")
    running.program.signal(signal.SIGTERM)
    assert await running.program.ended() == 0
    refused = await puppet.get(place.upstreams.url(API, "/open/thing"))
    assert refused["status"] is None
    assert await puppet.exit(5) == 5
    assert "the lease could not be completed" in puppet.program.err.text


async def test_a_second_up_on_the_same_home_is_refused_and_leaves_the_first_alone(
    place: Place,
) -> None:
    running = await place.up()
    second = await place.start_up()
    assert await second.ended() == 2
    assert_is_a_three_line_error(second.err.text, why="another process uses this state")
    assert second.out.text == ""
    url = place.upstreams.url(API, "/open/thing")
    puppet = await place.puppet("api")
    assert (await puppet.get(url))["status"] == 200
    assert is_alive(running.program.pid)


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("version: 1\nname: x\nrulez: []\n", "policy.yaml:3:1"),
        ("version: 2\nname: x\n", "policy.yaml:1:"),
    ],
    ids=["misspelt key", "unknown version"],
)
async def test_up_with_a_bad_policy_names_the_line(place: Place, policy: str, why: str) -> None:
    place.policy_file.write_text(policy)
    program = await place.start_up()
    assert await program.ended() == 2
    assert why in program.err.text
    assert "Traceback" not in program.err.text


async def test_up_with_a_port_that_is_taken_says_so(place: Place) -> None:
    first = await place.up()
    other: Program = await place.programs.start(
        *place.up_command(listen=urlsplit(first.proxy).netloc),
        environment={**place.environment, "PALYRA_HOME": str(place.directory / "other")},
    )
    assert await other.ended() == 2
    assert_is_a_three_line_error(other.err.text, why="address already in use")


async def test_many_runs_at_once_each_get_their_own_worker_and_lease(place: Place) -> None:
    await place.up()
    puppets = await asyncio.gather(*(place.puppet("api") for _ in range(3)))
    assert len({puppet.proxy_url for puppet in puppets}) == 3
    workers = await place.workers()
    assert len({worker.worker_id for worker in workers}) == 3
    for puppet in puppets:
        assert await puppet.exit(0) == 0
    await until("every lease is handed back", lambda: _idle(place))
    await assert_nothing_is_held(place, runs=3)


async def _idle(place: Place) -> bool:
    return all(worker.work == "idle" for worker in await place.workers())


@pytest.mark.parametrize(
    ("trusted", "claimed", "allowed"),
    [("net", "net", True), ("net", "gpu", False), ("gpu", "net", False)],
)
async def test_a_capability_counts_where_the_launcher_says_it_and_the_fleet_trusts_it(
    place: Place, curl: str, trusted: str, claimed: str, allowed: bool
) -> None:
    await place.up("--trust-capability", trusted)
    url = place.upstreams.url(API, "/open/thing")
    done = await place.run_to_its_end(
        "api-net", curl, "-sSi", url, options=("--capability", claimed)
    )
    assert (done.code == 0) is allowed, done.said
    assert ("egress.profile_requirements" in done.said) is not allowed
    assert len(place.upstreams.seen) == int(allowed)
