"""An event as a document: the names of the log, bounded, and the chain's digests with it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.exports.documents import document_of, text_of
from palyra_fleet.logs.fields import Field
from tests.fakes.siem import entries

ANY = st.text(st.characters(exclude_categories=()), max_size=50)


def test_a_quarantine_is_an_alert_with_its_decision_id() -> None:
    event = entries(3, why="egress.metadata_target", decision_id="D", request_id=None)[2]
    found = document_of(event)
    assert (found["event.kind"], found["log.level"]) == ("alert", "warning")
    assert (found["event.action"], found["event.sequence"]) == ("worker.quarantined_by_egress", 3)
    assert found[Field.DECISION_ID] == "D"
    assert found["event.hash"] == event.sha256
    assert Field.REQUEST_ID not in found
    told = found["palyra.event"]
    assert isinstance(told, dict)
    assert (told["previous_sha256"], told["detail"]["number"]) == (event.previous_sha256, 2)
    assert document_of(entries(1)[0])["event.kind"] == "event"


@given(ANY, ANY)
def test_a_document_is_one_bounded_line_of_printable_ascii(name: str, value: str) -> None:
    event = entries(1)[0].model_copy(
        update={"actor": value * 99, "detail": {f"{n}{name}": value * 999 for n in range(60)}}
    )
    line = text_of(event)
    assert line.isascii() and line.isprintable()
    assert len(line) < 128 * 1024
    json.loads(line)
