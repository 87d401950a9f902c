"""Which pairs get dense depth."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from anchorsfm.frontend.classical.depth_pairs import choose_depth_pairs
from anchorsfm.frontend.classical.two_view import RelativePose
from anchorsfm.scene.pairs import PairStatus


def _pose(num: int, parallax_deg: float, status: PairStatus = PairStatus.OK) -> RelativePose:
    return RelativePose(
        status=status,
        keypoint=np.zeros((num, 2), np.int32),
        j_from_i=np.eye(3, 4),
        depth=np.ones((num, 2), np.float32),
        error_px=np.zeros(num, np.float32),
        parallax_deg=parallax_deg,
    )


def _complete(num: int) -> np.ndarray:
    return np.stack(np.triu_indices(num, 1), axis=1)


def test_small_sets_keep_all_pairs_and_large_ones_a_few_an_image():
    rng = np.random.default_rng(0)
    for num, per_image in ((5, 4), (60, 4), (60, 7)):
        pairs = _complete(num)
        poses = [_pose(int(rng.integers(30, 900)), float(rng.uniform(0, 30))) for _ in pairs]
        chosen = choose_depth_pairs(pairs, poses, per_image)
        degree = np.bincount(pairs[chosen].ravel(), minlength=num)
        assert degree.min() >= min((per_image + 1) // 2, num - 1)
        assert chosen.sum() <= 0.75 * per_image * num
        if num == 5:
            assert chosen.all()


def test_pairs_of_good_parallax_come_first_and_those_without_depth_never():
    pairs = np.array([(0, k) for k in range(1, 7)])
    poses = [_pose(300, a) for a in (0.4, 5.0, 6.0, 60.0, 4.0)] + [_pose(900, 0.1, PairStatus.PURE_ROTATION)]
    pairs = np.concatenate([pairs, [(k, 6) for k in range(1, 6)]])
    poses += [_pose(300, 5.0)] * 5
    chosen = choose_depth_pairs(pairs, poses, 2)
    assert chosen[[1, 2]].all() or chosen[[1, 4]].all() or chosen[[2, 4]].all()
    assert not chosen[5] and not chosen[0] and not chosen[3]


def test_the_chosen_pairs_hold_together_what_all_pairs_hold_together():
    """Two groups of good pairs, joined by one poor pair, and a third group by itself."""
    groups = (range(12), range(12, 24), range(24, 30))
    pairs = [(i, j) for group in groups for i in group for j in group if i < j] + [(3, 17)]
    poses = [_pose(500, 6.0)] * (len(pairs) - 1) + [_pose(31, 0.4)]
    index = np.array(pairs)
    chosen = choose_depth_pairs(index, poses, 3)
    assert chosen[-1]
    links = coo_array((np.ones(chosen.sum()), tuple(index[chosen].T)), shape=(30, 30))
    assert connected_components(links, directed=False)[0] == 2


def test_no_pairs_and_no_depth_are_nothing():
    assert choose_depth_pairs(np.zeros((0, 2), np.int64), [], 4).shape == (0,)
    unmatched = [_pose(0, 0.0, PairStatus.UNMATCHED)] * 3
    assert not choose_depth_pairs(_complete(3), unmatched, 4).any()
