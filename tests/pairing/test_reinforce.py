"""Which pairs a second method looks at: those of badly tied photographs, in order of promise, within a budget."""

import itertools

import numpy as np

from anchorsfm.pairing.config import ReinforceConfig
from anchorsfm.pairing.reinforce import MAX_FAILURES, MIN_BUDGET, Reinforcement
from anchorsfm.pairing.search import _apart


def _complete(num: int) -> np.ndarray:
    return np.array(list(itertools.combinations(range(num), 2)))


def _asked(choice: Reinforcement, pairs: np.ndarray, result) -> list[list[tuple[int, int]]]:
    """Pairs of every round; `result` gives the verified matches of a pair."""
    rounds = []
    while len(rows := choice.next_rows()):
        asked = [tuple(pair) for pair in pairs[rows].tolist()]
        rounds.append(asked)
        choice.learn(rows, np.array([result(*pair) for pair in asked], np.int64))
        assert len(rounds) < 100
    return rounds


def test_well_tied_photographs_ask_for_nothing() -> None:
    pairs = _complete(8)
    verified = np.where(pairs[:, 1] - pairs[:, 0] <= 3, 1000, 0)
    choice = Reinforcement(pairs, verified, np.ones((8, 8)), ReinforceConfig())
    assert len(choice.next_rows()) == 0


def test_few_photographs_have_all_their_pairs_looked_at() -> None:
    pairs = _complete(3)
    choice = Reinforcement(pairs, np.array([900, 200, 0]), np.ones((3, 3)), ReinforceConfig())
    rounds = _asked(choice, pairs, lambda i, j: 1000)
    assert sorted(pair for asked in rounds for pair in asked) == [(0, 1), (0, 2), (1, 2)]


def test_common_neighbours_and_likeness_promise_most() -> None:
    pairs = _complete(6)
    verified = np.zeros(len(pairs), np.int64)
    for i, j in ((1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (1, 4)):
        verified[(pairs == (i, j)).all(axis=1)] = 800
    verified[(pairs == (0, 1)).all(axis=1)] = 450
    likeness = np.full((6, 6), 0.1)
    likeness[0, 2] = likeness[2, 0] = 0.15
    rounds = _asked(Reinforcement(pairs, verified, likeness, ReinforceConfig()), pairs, lambda i, j: 600)
    assert (0, 2) in rounds[0], "alike, and both match photograph 1"
    assert all(0 in pair or 5 in pair for asked in rounds for pair in asked), "the others are well tied"


def test_disappointed_photographs_and_the_budget_end_it() -> None:
    pairs = _complete(12)
    nothing = np.zeros(len(pairs), np.int64)
    wide = ReinforceConfig(pairs_per_image=11, budget=100)
    asked = [
        p for r in _asked(Reinforcement(pairs, nothing, np.ones((12, 12)), wide), pairs, lambda i, j: 0) for p in r
    ]
    assert len(asked) == len(set(asked)), "each pair once"
    assert np.bincount(np.array(asked).reshape(-1)).max() <= 12 and len(asked) < len(pairs)
    narrow = Reinforcement(pairs, nothing, np.ones((12, 12)), ReinforceConfig(budget=0.5))
    assert narrow.budget == MIN_BUDGET
    assert sum(map(len, _asked(narrow, pairs, lambda i, j: 1000))) <= MIN_BUDGET
    none = Reinforcement(pairs, nothing, np.ones((12, 12)), ReinforceConfig(pairs_per_image=0, budget=0))
    assert len(none.next_rows()) == 0
    assert MAX_FAILURES >= 1


def test_many_pairs_with_some_matches_tie_a_photograph_too() -> None:
    pairs = _complete(10)
    choice = Reinforcement(pairs, np.full(len(pairs), 150), np.ones((10, 10)), ReinforceConfig())
    assert len(choice.next_rows()) == 0, "nine times .375"


def test_the_budget_counts_photographs_that_are_new_to_the_second_method() -> None:
    pairs = _complete(20)
    verified = np.where(pairs[:, 1] - pairs[:, 0] == 1, 300, 0)  # a chain
    for cost in (0.0, 2.0):
        choice = Reinforcement(pairs, verified, np.ones((20, 20)), ReinforceConfig(), cost)
        assert choice.budget == 20
        asked = [pair for found in _asked(choice, pairs, lambda i, j: 500) for pair in found]
        seen = {image for pair in asked for image in pair}
        assert choice.spent == len(asked) + cost * len(seen) <= 20
        assert choice.spent > 20 - 1 - 2 * cost, "and is used"
        assert cost == 0 or len(asked) > len(seen) / 2, "photographs that it knows come first"


def test_components_come_before_badly_tied_photographs() -> None:
    pairs = _complete(20)
    verified = np.where((pairs < 10).all(axis=1) & (pairs[:, 1] - pairs[:, 0] == 1), 100, 0)  # a chain, badly tied
    same = (pairs >= 10).all(axis=1)
    verified = np.where(same, 900, verified)
    choice = Reinforcement(pairs, verified, np.ones((20, 20)), ReinforceConfig(budget=0.5), 1.0)
    first = pairs[choice.next_rows()]
    assert len(first) and all(i < 10 <= j for i, j in first.tolist())


def test_components_are_connected() -> None:
    pairs = _complete(10)
    same = (pairs[:, 0] < 5) == (pairs[:, 1] < 5)
    likeness = np.full((10, 10), 0.01)
    likeness[4, 7] = likeness[7, 4] = 0.2
    choice = Reinforcement(pairs, np.where(same, 900, 0), likeness, ReinforceConfig())
    rounds = _asked(choice, pairs, lambda i, j: 300 if (i, j) == (4, 7) else 0)
    assert (4, 7) in rounds[0] and len(rounds) == 1, "every photograph is well tied, but not the two groups"


def test_failed_pairs_between_groups_are_kept_for_a_second_method() -> None:
    matched = np.array([[0, 1], [1, 2], [3, 4]])
    failed = np.array([[0, 2], [2, 3], [0, 4]])
    assert _apart(matched, failed, 5).tolist() == [[2, 3], [0, 4]]


def test_unrelated_photographs_are_named_with_their_best_pair() -> None:
    pairs = _complete(6)
    verified = np.where((pairs < 3).all(axis=1), 500, 0)
    likeness = np.full((6, 6), 0.1)
    likeness[1, 4] = likeness[4, 1] = 0.5
    likeness[4, 5] = likeness[5, 4] = 0.9
    choice = Reinforcement(pairs, verified, likeness, ReinforceConfig())
    found = {image: tuple(pairs[row].tolist()) for image, row in choice.unrelated()}
    assert set(found) == {3, 4, 5} and found[4] == (1, 4), "with one that is tied before one that is not"
    alone = Reinforcement(_complete(2), np.array([0]), np.ones((2, 2)), ReinforceConfig(budget=1), 1.0)
    assert alone.unrelated() == [(0, 0)], "one of two"
    assert alone.pay(3, 3) and alone.spent == 6 and not alone.pay(3, 3) and alone.spent == 6


def test_weakly_matched_pairs_are_looked_at_first() -> None:
    """They overlap for sure; that two photographs are alike says less."""
    pairs = _complete(12)
    verified = np.where(pairs[:, 1] - pairs[:, 0] == 1, 150, 0)
    choice = Reinforcement(pairs, verified, np.ones((12, 12)), ReinforceConfig(), 1.1)
    first = pairs[choice.next_rows()]
    assert len(first) and (first[:, 1] - first[:, 0] == 1).all()
