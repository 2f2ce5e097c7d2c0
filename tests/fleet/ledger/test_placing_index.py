"""The order of those who wait: always the best, at a cost that does not grow with their number."""

import math
import random
from typing import Any

import pytest

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.leases.offers import Offer, PlacementOrder
from palyra_fleet.ledger.placing_index import MAX_ENDED, PlacingIndex
from palyra_fleet.wire.placement_models import OfferState

ANY: frozenset[str] = frozenset()
GPU = frozenset({"gpu"})
OBSERVED, ENFORCED = BindingLevel.OBSERVED, BindingLevel.ENFORCED


class Counted(tuple[int, ...]):
    """A score that counts how often it is compared."""

    steps = 0

    def __lt__(self, other: Any) -> bool:
        Counted.steps += 1
        return super().__lt__(other)

    def __eq__(self, other: object) -> bool:
        Counted.steps += 1
        return super().__eq__(other)

    __hash__ = tuple.__hash__


def test_the_best_is_first_and_equals_go_by_id() -> None:
    index = PlacingIndex()
    for name, score in (("c", (0, 5, 0)), ("b", (0, 1, 0)), ("a", (0, 5, 0)), ("d", (1, 0, 0))):
        index.enter(name, (ANY, OBSERVED), score)
    assert list(index.in_order(ANY, OBSERVED)) == ["b", "a", "c", "d"]


def test_only_who_has_what_is_required_is_met_from_whatever_heap() -> None:
    index = PlacingIndex()
    index.enter("plain", (ANY, OBSERVED), (0, 0, 0))
    index.enter("gpu", (GPU, OBSERVED), (0, 2, 0))
    index.enter("more", (GPU | {"tpu"}, ENFORCED), (0, 1, 0))
    assert list(index.in_order(ANY, OBSERVED)) == ["plain", "more", "gpu"]
    assert list(index.in_order(GPU, OBSERVED)) == ["more", "gpu"]
    assert list(index.in_order(GPU, ENFORCED)) == ["more"]
    assert list(index.in_order(frozenset({"other"}), OBSERVED)) == []
    assert list(index.in_order(ANY, OBSERVED, "gpu")) == ["gpu"]
    assert list(index.in_order(ANY, OBSERVED, "stranger")) == []


def test_who_left_is_met_no_more_and_who_came_back_once() -> None:
    index = PlacingIndex()
    for name in "abc":
        index.enter(name, (ANY, OBSERVED), (0, ord(name), 0))
    index.leave("b")
    assert list(index.in_order(ANY, OBSERVED)) == ["a", "c"]
    index.enter("b", (ANY, OBSERVED), (0, ord("b"), 0))
    assert list(index.in_order(ANY, OBSERVED)) == ["a", "b", "c"]
    index.leave("nobody")
    assert index.waiting == 3


def test_a_new_score_or_kind_moves_a_worker() -> None:
    index = PlacingIndex()
    index.enter("a", (ANY, OBSERVED), (0, 0, 0))
    index.enter("b", (ANY, OBSERVED), (0, 1, 0))
    index.enter("a", (ANY, OBSERVED), (1, 0, 0))
    assert list(index.in_order(ANY, OBSERVED)) == ["b", "a"]
    index.enter("a", (GPU, OBSERVED), (1, 0, 0))
    assert list(index.in_order(GPU, OBSERVED)) == ["a"]
    assert list(index.in_order(ANY, OBSERVED)) == ["b", "a"]


def test_it_is_in_order_whatever_comes_and_goes() -> None:
    chance, index = random.Random(7), PlacingIndex()
    waiting: dict[str, tuple[frozenset[str], tuple[int, int, int]]] = {}
    for _ in range(3_000):
        name = f"w{chance.randrange(40)}"
        if chance.random() < 0.4:
            waiting.pop(name, None)
            index.leave(name)
        else:
            kind, score = chance.choice([ANY, GPU]), (chance.randrange(3), chance.randrange(9), 0)
            waiting[name] = (kind, score)
            index.enter(name, (kind, OBSERVED), score)
        required = chance.choice([ANY, GPU])
        expected = sorted(
            (score, who) for who, (kind, score) in waiting.items() if kind >= required
        )
        assert list(index.in_order(required, OBSERVED)) == [who for _, who in expected]


def test_to_enter_again_with_the_same_score_changes_nothing() -> None:
    index = PlacingIndex()
    for name in ("first", "second", "second", "second"):
        index.enter(name, (ANY, OBSERVED), (0, 0, 0))
    (group,) = index._groups.values()
    assert len(group.heap) == 2


def test_of_offers_that_ended_the_newest_are_remembered() -> None:
    index, order = PlacingIndex(), PlacementOrder("run", 1)
    for number in range(MAX_ENDED):
        index.put(Offer(f"{number}", "w", "grant", order, 0, 1, OfferState.LAPSED))
    assert (len(index.ended), next(iter(index.ended))) == (MAX_ENDED, "0")
    index.put(Offer("last", "w", "grant", order, 0, 1, OfferState.LAPSED))
    assert (len(index.ended), next(iter(index.ended))) == (MAX_ENDED, "1")
    assert "last" in index.ended


def test_what_left_is_not_kept_for_ever() -> None:
    index = PlacingIndex()
    index.enter("first", (ANY, OBSERVED), (0, 0, 0))
    for turn in range(10_000):
        index.enter("second", (ANY, OBSERVED), (0, 1 + turn, 0))
    (group,) = index._groups.values()
    assert len(group.heap) < 50
    index.leave("first")
    index.leave("second")
    assert index._groups == {}


@pytest.mark.parametrize("size", [256, 4_096, 65_536])
def test_a_placement_takes_logarithmically_many_steps(size: int) -> None:
    """Taking the best out and putting it back as the last, over and over."""
    index = PlacingIndex()
    for number in range(size):
        index.enter(f"{number:06}", (ANY, OBSERVED), Counted((0, number, 0)))  # type: ignore[arg-type]
    rounds = 2_000
    Counted.steps = 0
    for turn in range(rounds):
        best = next(index.in_order(ANY, OBSERVED))
        index.leave(best)
        index.enter(best, (ANY, OBSERVED), Counted((0, size + turn, 0)))  # type: ignore[arg-type]
    assert Counted.steps / rounds < 8 * math.log2(size)
