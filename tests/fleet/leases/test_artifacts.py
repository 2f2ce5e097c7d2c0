"""What a lease lets be carried, hostile rows of it; and reports that say something else."""

from dataclasses import replace

import pytest

from palyra_fleet.leases.artifacts import (
    Artifact,
    ArtifactTransport,
    CarriedArtifacts,
    checksums,
)
from palyra_fleet.leases.records import LeaseOrder, LeaseStatus, WorkerLease
from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.facts import Admission, Work
from palyra_fleet.refusals import Refusal
from palyra_fleet.store.codec import lease_body, read_lease
from palyra_fleet.wire.artifacts import MAX_ARTIFACTS, MAX_TRANSPORT_BYTES
from tests.fakes.ledger_world import SCOPE, LedgerWorld, ulid

W1 = ulid(1001)
DATA = Artifact("data/rows.csv", "a" * 64, 10)
MORE = Artifact("more", "b" * 64, 20)
REPORT = Artifact("report.json", "c" * 64, 30)
ALLOWED = ArtifactTransport((DATA, MORE), ("report.json", "log/all"), 40)
TRUE = CarriedArtifacts((MORE, DATA), (REPORT,))


def test_named_files_are_taken_and_so_is_nothing_at_all() -> None:
    assert ALLOWED.problem() is None
    assert ArtifactTransport().problem() is None


@pytest.mark.parametrize(
    "largest",
    [
        ArtifactTransport(tuple(replace(DATA, path=f"f{n}") for n in range(MAX_ARTIFACTS))),
        ArtifactTransport((), tuple(f"f{n}" for n in range(MAX_ARTIFACTS)), 1),
        ArtifactTransport((replace(DATA, size_bytes=MAX_TRANSPORT_BYTES),)),
        ArtifactTransport((), ("a",), MAX_TRANSPORT_BYTES),
        ArtifactTransport((replace(DATA, size_bytes=0),)),
    ],
    ids=["inputs", "outputs", "bytes in", "bytes out", "an empty file"],
)
def test_as_much_as_the_limits_say_is_taken(largest: ArtifactTransport) -> None:
    assert largest.problem() is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        ".hidden",
        "a/.git/config",
        "-rf",
        "a b",
        "a\nb",
        "a\\b",
        "a\0b",
        "ä",
        "/".join("abcdefghi"),  # nine deep
        "a" * 101,
        "a\n",
    ],
)
def test_a_path_that_is_not_plain_is_refused_coming_and_going(path: str) -> None:
    assert ArtifactTransport((replace(DATA, path=path),)).problem() is not None
    assert ArtifactTransport((), (path,), 1).problem() is not None


@pytest.mark.parametrize(
    "wrong",
    [
        ArtifactTransport((DATA, DATA)),
        ArtifactTransport((), ("a", "a"), 1),
        ArtifactTransport((), ("a", "a/b"), 1),  # a file cannot be a directory as well
        ArtifactTransport((replace(DATA, digest_sha256="A" * 64),)),
        ArtifactTransport((replace(DATA, digest_sha256=""),)),
        ArtifactTransport((replace(DATA, size_bytes=-1),)),
        ArtifactTransport((replace(DATA, size_bytes=MAX_TRANSPORT_BYTES), MORE)),
        ArtifactTransport(tuple(replace(DATA, path=f"f{n}") for n in range(MAX_ARTIFACTS + 1))),
        ArtifactTransport((), tuple(f"f{n}" for n in range(MAX_ARTIFACTS + 1)), 1),
        ArtifactTransport((), ("a",), MAX_TRANSPORT_BYTES + 1),
        ArtifactTransport((), ("a",), -1),
    ],
)
def test_what_is_ambiguous_or_boundless_is_refused(wrong: ArtifactTransport) -> None:
    assert wrong.problem() is not None


@pytest.mark.parametrize(
    "true",
    [
        TRUE,
        CarriedArtifacts((DATA, MORE)),  # the program left nothing
        CarriedArtifacts((DATA, MORE), (replace(REPORT, size_bytes=40),)),
        CarriedArtifacts((DATA, MORE), (replace(REPORT, size_bytes=0),)),
        CarriedArtifacts((DATA, MORE), (REPORT, Artifact("log/all", "d" * 64, 10))),
    ],
)
def test_a_report_of_what_the_lease_names_differs_in_nothing(true: CarriedArtifacts) -> None:
    assert ALLOWED.difference(true) is None


LIES = [
    (CarriedArtifacts(), "inputs"),  # nothing was looked at
    (CarriedArtifacts((DATA,)), "inputs"),
    (CarriedArtifacts((DATA, MORE, REPORT)), "inputs"),
    (CarriedArtifacts((DATA, replace(MORE, digest_sha256="c" * 64))), "inputs"),
    (CarriedArtifacts((DATA, replace(MORE, size_bytes=21))), "inputs"),
    (CarriedArtifacts((DATA, replace(MORE, path="other"))), "inputs"),
    (CarriedArtifacts((DATA, DATA, MORE)), "inputs"),
    (CarriedArtifacts((DATA, MORE), (replace(REPORT, path="loot"),)), "does not name"),
    (CarriedArtifacts((DATA, MORE), (REPORT, REPORT)), "twice"),
    (CarriedArtifacts((DATA, MORE), (replace(REPORT, size_bytes=41),)), "larger"),
    (CarriedArtifacts((DATA, MORE), (replace(REPORT, size_bytes=-1),)), "no size"),
    (CarriedArtifacts((DATA, MORE), (replace(REPORT, digest_sha256=""),)), "without a digest"),
]


@pytest.mark.parametrize(("lie", "word"), LIES)
def test_a_report_of_anything_else_says_what_differs(lie: CarriedArtifacts, word: str) -> None:
    assert word in (ALLOWED.difference(lie) or "")


def test_checksums_are_what_sha256sum_reads_in_a_fixed_order() -> None:
    assert checksums((MORE, DATA)) == f"{'a' * 64}  data/rows.csv\n{'b' * 64}  more"


def leased(world: LedgerWorld, transport: ArtifactTransport = ALLOWED) -> WorkerLease:
    world.register(W1)
    grant_id = world.grant("run-1", 2_000)
    order = LeaseOrder("run-1", 60_000, (), SCOPE, transport)
    outcome = world.manager.grant_lease(W1, 1, grant_id, order, ulid(9), "5" * 64, 2_000)
    return next(one for one in world.do(outcome).records if isinstance(one, WorkerLease))


def completed(world: LedgerWorld, lease: WorkerLease, carried: CarriedArtifacts) -> Decision:
    return world.do(
        world.manager.complete_lease(W1, 1, lease.lease_id, lease.fence, True, 2_500, carried)
    )


def test_a_lease_is_given_for_well_formed_artifacts_only() -> None:
    world = LedgerWorld()
    world.register(W1)
    grant_id = world.grant("run-1", 2_000)
    order = LeaseOrder("run-1", 60_000, (), SCOPE, ArtifactTransport((), ("../up",), 1))
    refused = world.manager.grant_lease(W1, 1, grant_id, order, ulid(9), "5" * 64, 2_000)
    assert isinstance(refused, Refusal)
    assert refused.text.startswith("worker lease request is invalid: artifact_transport outputs")


def test_digests_of_what_goes_in_and_comes_out_stand_in_the_event_chain() -> None:
    world = LedgerWorld()
    lease = leased(world)
    (given,) = [event for event in world.decisions[-1].events if event.lease_id]
    assert given.detail["inputs_sha256sum"] == checksums((DATA, MORE))
    done = completed(world, lease, TRUE)
    assert done.events[0].reason == "worker.completed"
    assert done.events[0].detail["outputs_sha256sum"] == checksums((REPORT,))
    assert world.worker(W1).work is Work.IDLE


@pytest.mark.parametrize(("lie", "word"), LIES)
def test_a_report_that_differs_from_the_lease_quarantines(lie: CarriedArtifacts, word: str) -> None:
    world = LedgerWorld()
    done = completed(world, leased(world), lie)
    event = next(event for event in done.events if event.reason == "worker.cleanup_failed")
    assert word in str(event.detail["why"])
    assert world.worker(W1).admission is Admission.QUARANTINED
    (lease,) = [record for record in done.records if isinstance(record, WorkerLease)]
    assert lease.status is LeaseStatus.CLEANUP_FAILED


def test_a_lease_without_artifacts_takes_a_report_without_and_no_other() -> None:
    world = LedgerWorld()
    lease = leased(world, ArtifactTransport())
    completed(world, lease, CarriedArtifacts((), (REPORT,)))
    assert world.worker(W1).admission is Admission.QUARANTINED


def test_artifacts_are_kept_with_the_lease_and_older_leases_have_none() -> None:
    lease = leased(LedgerWorld())
    body = lease_body(lease)
    assert read_lease(body) == lease
    older = lease_body(replace(lease, artifact_transport=ArtifactTransport()))
    cut = older.replace(',"artifact_transport":{"inputs":[],"outputs":[],"max_output_bytes":0}', "")
    assert cut != older
    assert read_lease(cut).artifact_transport == ArtifactTransport()
