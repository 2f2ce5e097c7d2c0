"""What anybody who may look sends to be checked takes neither the proxy's time nor its memory."""

import tempfile
from pathlib import Path

import pytest
from ulid import ULID

from palyra_egress.policy.load import load_policy
from palyra_egress.proxy.policy_talk import answered
from palyra_egress.questions import check_process
from palyra_egress.questions.bundle import checked
from palyra_egress.questions.standing import Loaded
from palyra_fleet.client.policies import EXTRA_WAIT_MS
from palyra_fleet.client.transport import DEFAULT_TIMEOUT_MS
from palyra_fleet.service import policy_desk
from palyra_fleet.wire.policy_models import AskCheck, Checked, PolicyQuestion, PolicyText

IN_FORCE = load_policy(b"version: 1\nname: none\nrules: []\nprofiles: {all: []}\n", "policy.yaml")
GOOD = """version: 1
name: small
rules:
  - {id: a, hosts: [a.example], owner: o, reason: r}
profiles: {all: [a]}
"""


def asked(text: str) -> AskCheck:
    return AskCheck(files=(PolicyText(name="egress.yaml", text=text),))


def one_for_every_pair(count: int) -> str:
    """A short file that means `count` to the third grants."""
    hosts = ", ".join(f"h{n}.example" for n in range(count))
    paths = ", ".join(f"/p{n}/**" for n in range(count))
    profiles = "".join(f"  p{n}: [a]\n" for n in range(count))
    rule = f"  - {{id: a, hosts: [{hosts}], paths: [{paths}], methods: [GET, PUT, POST]}}\n"
    return f"version: 1\nname: wide\nrules:\n{rule}profiles:\n{profiles}"


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go meanwhile."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("text", [GOOD, "version: 1\nnmae: wrong\n"])
async def test_a_process_of_its_own_tells_the_same(
    text: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_process, "WITHIN_S", 60.0)
    found = await check_process.checked_apart(IN_FORCE, asked(text), 0)
    assert found == checked(IN_FORCE, asked(text), 0)
    assert not left_in(scratch)


def test_every_side_waits_for_longer_than_the_one_it_asks() -> None:
    assert check_process.WITHIN_S < policy_desk.CHECKED_WITHIN_S
    assert check_process.WITHIN_S < policy_desk.SILENT_AFTER_MS / 1000
    assert policy_desk.CHECKED_WITHIN_S < (DEFAULT_TIMEOUT_MS + EXTRA_WAIT_MS) / 1000


async def test_a_short_file_that_takes_minutes_is_given_up_and_leaves_nothing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_process, "WITHIN_S", 2.0)
    text = one_for_every_pair(100)
    assert len(text) < 4_000
    question = PolicyQuestion(question_id=str(ULID()), ask=asked(text))
    found = (await answered(Loaded(IN_FORCE, 1), question)).answer
    assert isinstance(found, Checked)
    assert not found.good
    assert found.checked_digest is None
    assert [one.message.partition(";")[0] for one in found.problems] == [
        "checking these files takes longer than 2 s"
    ]
    assert not left_in(scratch)


async def test_a_process_that_dies_is_no_answer_that_all_is_well(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_process.sys, "executable", "/bin/false")
    found = await check_process.checked_apart(IN_FORCE, asked(GOOD), 0)
    assert not found.good
    assert len(found.problems) == 1
