"""The deadline heap against a plain dictionary, and what asking it costs."""

from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.ledger.deadlines import DeadlineHeap, DeadlineKind

_IDS = st.sampled_from("abc")
_KINDS = st.sampled_from([DeadlineKind.LEASE, DeadlineKind.HEARTBEAT])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), _KINDS, _IDS, st.integers(0, 30)),
        st.tuples(st.just("cancel"), _KINDS, _IDS, st.just(0)),
        st.tuples(st.just("reap"), _KINDS, _IDS, st.integers(0, 30)),
    ),
    max_size=60,
)


@given(_STEPS)
def test_the_heap_knows_what_a_dictionary_knows(
    steps: list[tuple[str, DeadlineKind, str, int]],
) -> None:
    heap = DeadlineHeap()
    model: dict[tuple[DeadlineKind, str], int] = {}
    for verb, kind, name, at in steps:
        match verb:
            case "set":
                heap.set(kind, name, at)
                model[kind, name] = at
            case "cancel":
                heap.cancel(kind, name)
                model.pop((kind, name), None)
            case _:
                due = heap.due(at)
                assert set(due) == {s for s, when in model.items() if when <= at}
                assert heap.due(at) == due  # looking changes nothing
                heap.drop_until(at)
                for subject in due:
                    del model[subject]
    assert set(heap.due(10**6)) == set(model)


def test_beating_again_and_again_does_not_grow_the_heap() -> None:
    heap = DeadlineHeap()
    for now in range(10_000):
        heap.set(DeadlineKind.HEARTBEAT, "w", now + 100)
        heap.drop_until(now)
    assert len(heap._heap) == 1
