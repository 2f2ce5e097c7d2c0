"""Events of a real fleet at a real receiver: all of them, in order, also over a kill -9."""

from tests.e2e.place import FLEET, FREE, Place
from tests.e2e.programs import Program
from tests.fakes.siem import SECRET_LINE, siem, status, write_secret
from tests.fakes.until import until


async def serving(place: Place, url: str) -> Program:
    """By environment, as a container would say it."""
    extra = {
        "PALYRA_FLEET_SERVE__WEBHOOK_URL": url,
        "PALYRA_FLEET_SERVE__WEBHOOK_SECRET_FILE": str(place.directory / "webhook.secret"),
        "PALYRA_FLEET_SERVE__WEBHOOK_CA": str(place.ca.ca_file),
        "PALYRA_FLEET_SERVE__LOG_LEVEL": "info",
    }
    program = await place.programs.start(
        *(FLEET, "serve", "--admin", FREE), environment={**place.environment, **extra}
    )
    await until("the fleet serves", lambda: "operator token" in program.err.text)
    return program


async def granted(place: Place, run_id: str) -> None:
    told = ("--tool", "sh", "--principal", "tests", "--profile", "api")
    done = await place.fleet("grant", "create", run_id, *told)
    assert done.code == 0, done.said


async def test_nothing_is_lost_when_receiver_and_fleet_go_down(place: Place) -> None:
    write_secret(place.directory / "webhook.secret")
    async with siem(place.ca.server_context("localhost")) as receiver:
        fleet = await serving(place, receiver.url)
        await granted(place, "run-1")
        await receiver.until(lambda: len(receiver.taken) >= 2)
        receiver.answer = status(503)
        asked = receiver.asked
        await granted(place, "run-2")
        await receiver.until(lambda: receiver.asked > asked)
        failing = "events are not exported to webhook: failed"
        await until("the fleet says so", lambda: failing in fleet.err.text)
        await fleet.kill()
        receiver.answer = status(204)
        again = await serving(place, receiver.url)
        await granted(place, "run-3")
        async with place.operator() as operator:
            events = await operator.events(0, 1000)
        await receiver.until(lambda: set(receiver.sequences) >= {event.seq for event in events})
    seen = list(dict.fromkeys(receiver.sequences))  # at least once: the same may come again
    assert seen == [event.seq for event in events]
    by_hash = {document["event.hash"] for document in receiver.taken}
    assert by_hash == {event.sha256 for event in events}
    assert [d["event.action"] for d in receiver.taken].count("fleet.started") == 2
    assert receiver.unsigned == 0
    for program in (fleet, again):
        assert SECRET_LINE not in program.err.text and SECRET_LINE[6:] not in program.err.text
