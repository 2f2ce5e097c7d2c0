"""Wire models: closed, strict, and silent about secrets."""

import pytest
from pydantic import ValidationError

from palyra_fleet.wire import models as wire
from palyra_fleet.wire.models import WireModel

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
MODELS = [
    kind for kind in vars(wire).values() if isinstance(kind, type) and issubclass(kind, WireModel)
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_is_closed_frozen_and_strict(model: type[WireModel]) -> None:
    settings = model.model_config
    assert (settings["extra"], settings["frozen"], settings["strict"]) == ("forbid", True, True)


IDS = [
    (ULID, True),
    ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", True),
    ("8ZZZZZZZZZZZZZZZZZZZZZZZZZ", False),  # more than 128 bits
    (ULID.lower(), False),
    (ULID[:-1], False),
    (ULID + "0", False),
    (ULID[:-1] + "I", False),  # I, L, O and U are not in the alphabet
    (ULID + "\n", False),
    ("", False),
]


@pytest.mark.parametrize(("text", "well_formed"), IDS)
def test_an_id_is_a_ulid_in_its_one_spelling(text: str, well_formed: bool) -> None:
    body = {"lease_id": text, "fence": 1}
    if well_formed:
        assert wire.HeldLease.model_validate(body).lease_id == text
    else:
        with pytest.raises(ValidationError):
            wire.HeldLease.model_validate(body)


REASONS = [
    '{"reason": ""}',
    '{"reason": 1}',
    '{"reason": null}',
    '{"reason": "r", "more": 1}',
    "{}",
    "[]",
]


@pytest.mark.parametrize("text", REASONS)
def test_a_body_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        wire.ReasonRequest.model_validate_json(text)


@pytest.mark.parametrize("value", ["1", 1.5, True, None, -1, 0])
def test_a_number_is_a_number_in_its_bounds(value: object) -> None:
    with pytest.raises(ValidationError):
        wire.HeartbeatRequest.model_validate({"session_epoch": 1, "seq": value})


def test_a_lease_never_shows_its_secret() -> None:
    lease = wire.LeaseAnswer(
        lease_id=ULID,
        fence=1,
        worker_id=ULID,
        run_id="run-1",
        egress_profile="default",
        expires_at_unix_ms=1,
        egress_secret="s" * 43,
    )
    assert "sss" not in repr(lease) + str(lease)


def test_a_grant_is_for_one_use() -> None:
    grant = {
        "run_id": "r",
        "tool_name": "t",
        "principal": "p",
        "egress_profile": "e",
        "ttl_ms": 1000,
    }
    assert wire.GrantRequest.model_validate(grant).max_uses == 1
    with pytest.raises(ValidationError):
        wire.GrantRequest.model_validate({**grant, "max_uses": 2})
