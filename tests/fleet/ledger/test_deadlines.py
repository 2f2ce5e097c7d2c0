"""The deadline heap against a plain dictionary, and what asking it costs."""

from typing import Any, SupportsIndex

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
                earliest_first = sorted((when, s) for s, when in model.items() if when <= at)
                assert due == tuple(subject for _, subject in earliest_first)
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


def test_a_deadline_that_moved_later_comes_after_what_is_earlier_now() -> None:
    heap = DeadlineHeap()
    for name, at in (("moved", 5), ("stays", 10), ("moved", 12)):
        heap.set(DeadlineKind.LEASE, name, at)
    assert [name for _, name in heap.due(20)] == ["stays", "moved"]


def test_the_same_deadline_again_does_not_grow_the_heap() -> None:
    heap = DeadlineHeap()
    for _ in range(3):
        heap.set(DeadlineKind.DRAIN, "w", 100)
    assert len(heap._heap) == 1


class _Watched(list[tuple[int, DeadlineKind, str]]):
    """Counts how often an entry is looked at."""

    looks = 0

    def __getitem__(self, index: SupportsIndex | slice, /) -> Any:
        self.looks += 1
        return super().__getitem__(index)


def test_asking_looks_at_what_is_due_and_not_at_the_others() -> None:
    heap = DeadlineHeap()
    heap._heap = watched = _Watched()
    for number in range(1_000):
        heap.set(DeadlineKind.LEASE, f"lease-{number}", number)
    watched.looks = 0
    assert [name for _, name in heap.due(2)] == ["lease-0", "lease-1", "lease-2"]
    assert watched.looks < 20
