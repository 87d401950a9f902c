"""How pictures are turned against each other is found from matches."""

import itertools

import numpy as np

from anchorsfm.geometry.quarter_turns import turned_xy
from anchorsfm.pairing.quarter_turns import quarter_turns, turn_between


def _set(turns: np.ndarray, roll_deg: float = 0.0):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, [800, 600], (100, 2))
    size_wh = np.tile([800, 600], (100, 1))
    roll = np.deg2rad(rng.uniform(-roll_deg, roll_deg, len(turns)))
    seen = [
        turned_xy(points @ np.array([[np.cos(r), np.sin(r)], [-np.sin(r), np.cos(r)]]), size_wh, np.full(100, t))
        for t, r in zip(turns, roll, strict=True)
    ]
    pairs = np.array(list(itertools.combinations(range(len(turns)), 2)))
    between = np.array([turn_between(seen[i], seen[j]) for i, j in pairs])
    return pairs, between


def test_turns_are_undone():
    turns = np.array([0, 1, 0, 2, 0, 3, 0, 0])
    pairs, between = _set(turns, roll_deg=8)
    assert quarter_turns(8, pairs, between, np.ones(len(pairs))).tolist() == (-turns % 4).tolist()


def test_pairs_that_are_wrong_are_outvoted_and_upright_sets_stay():
    turns = np.array([0, 1, 0, 2, 0, 0])
    pairs, between = _set(turns)
    between[(pairs == (0, 1)).all(axis=1)] += 2
    weight = np.ones(len(pairs))
    weight[(pairs == (0, 1)).all(axis=1)] = 2.5
    assert quarter_turns(6, pairs, between, weight).tolist() == (-turns % 4).tolist()
    pairs, between = _set(np.zeros(6, np.int64), roll_deg=20)
    assert not quarter_turns(6, pairs, between, weight).any()
    assert not quarter_turns(6, pairs[:0], between[:0], weight[:0]).any()


def test_each_group_by_itself():
    pairs, between = _set(np.array([0, 1, 0, 2, 2, 0]))
    same = (pairs[:, 0] < 3) == (pairs[:, 1] < 3)
    found = quarter_turns(6, pairs[same], between[same], np.ones(int(same.sum())))
    assert found.tolist() == [0, 3, 0, 0, 0, 2]
