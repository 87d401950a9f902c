"""Which pairs to believe: synthetic graphs of relative rotations with wrong ones among them."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.pairing.config import ConsistencyConfig
from anchorsfm.pairing.consistency import judge_pairs
from anchorsfm.pairing.rotations import RelativeRotations, rotations_of_images

NOISE_DEG = 0.7


def turning(num_images, step_deg=9.0, seed=0):
    """cam_from_world of cameras that walk around, not quite level."""
    rng = np.random.default_rng(seed)
    yaw = np.arange(num_images) * step_deg
    return Rotation.from_euler("yxz", np.stack([yaw, *rng.normal(0, 8, (2, num_images))], axis=1), degrees=True)


def relative(world, pairs, seed=0, noise_deg=NOISE_DEG):
    """True relative rotations with noise."""
    rng = np.random.default_rng([seed, 1])
    noise = Rotation.from_rotvec(np.radians(noise_deg) * rng.normal(size=(len(pairs), 3)))
    i, j = np.array(pairs).T
    return (noise * world[j] * world[i].inv()).as_matrix()


def neighbours(num_images, reach=4, closed=False):
    """Pairs of images at most `reach` apart in order."""
    pairs = {(i, (i + k)) for i in range(num_images) for k in range(1, reach + 1)}
    if closed:
        pairs = {tuple(sorted((i, j % num_images))) for i, j in pairs}
    return sorted((i, j) for i, j in pairs if i < j < num_images)


def with_wrong(world, pairs, wrong_pairs, wrong_rotations, evidence=(80, 800), wrong_evidence=(40, 300), seed=0):
    """Relative rotations of right and wrong pairs, and which are wrong."""
    rng = np.random.default_rng([seed, 2])
    pair = np.array([*pairs, *wrong_pairs], np.int64)
    rotation = np.concatenate([relative(world, pairs, seed), wrong_rotations])
    amount = np.concatenate([rng.uniform(*evidence, len(pairs)), rng.uniform(*wrong_evidence, len(wrong_pairs))])
    is_wrong = np.arange(len(pair)) >= len(pairs)
    order = np.lexsort((pair[:, 1], pair[:, 0]))
    given = RelativeRotations(
        num_images=len(world), pair=pair[order], rotation=rotation[order], evidence=np.round(amount[order])
    )
    return given, is_wrong[order]


def far_pairs(num_images, count, reach=4, seed=0):
    rng = np.random.default_rng([seed, 3])
    i, j = np.triu_indices(num_images, reach + 1)
    chosen = rng.choice(len(i), count, replace=False)
    return np.stack([i, j], axis=1)[np.sort(chosen)].tolist()


def upright_turns(count, seed=0):
    """Rotations such as wrong pairs of upright photographs have: mostly about the vertical."""
    rng = np.random.default_rng([seed, 4])
    angles = np.stack([rng.uniform(-60, 60, count), *rng.normal(0, 5, (2, count))], axis=1)
    return Rotation.from_euler("yxz", angles, degrees=True).as_matrix()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("closed", [False, True])
def test_scattered_wrong_pairs_are_rejected_and_right_ones_confirmed(seed, closed):
    world = turning(40, seed=seed)
    pairs = neighbours(40, closed=closed)
    wrong = [p for p in far_pairs(40, 60, seed=seed) if tuple(p) not in set(pairs)]
    rotations = upright_turns(len(wrong), seed)
    given, is_wrong = with_wrong(world, pairs, wrong, rotations, seed=seed)
    assert is_wrong.mean() > 0.25
    belief = judge_pairs(given, ConsistencyConfig())
    far_off = is_wrong & (rotation_angle_deg(given.rotation @ _true(world, given.pair).transpose(0, 2, 1)) > 20)
    assert belief.rejected[far_off].all()
    assert not belief.rejected[~is_wrong].any()
    assert belief.confirmed[~is_wrong].mean() > 0.97
    assert not belief.confirmed[far_off].any()


@pytest.mark.parametrize("seed", range(5))
def test_wrong_pairs_that_agree_with_each_other_are_rejected(seed):
    """Two stretches of the walk look alike: a fifth of the pairs says that they are one place, all in the same way."""
    world = turning(40, seed=seed)
    pairs = neighbours(40)
    wrong = [(i, j) for i in range(4, 10) for j in range(24, 30)]
    imagined = Rotation.concatenate(
        [world[:20], world[0:20]]
    )  # as if the second half had been taken where the first was
    given, is_wrong = with_wrong(world, pairs, wrong, relative(imagined, wrong, seed), seed=seed)
    assert is_wrong.mean() > 0.19
    belief = judge_pairs(given, ConsistencyConfig())
    assert belief.rejected.tolist() == is_wrong.tolist()
    assert belief.confirmed[~is_wrong].mean() > 0.97


def _true(world, pair):
    i, j = pair.T
    return (world[j] * world[i].inv()).as_matrix()


def test_rotations_of_all_images_come_out_in_spite_of_wrong_pairs():
    world = turning(40)
    wrong = far_pairs(40, 40)
    given, _ = with_wrong(world, neighbours(40), wrong, upright_turns(40))
    found = rotations_of_images(given, given.evidence, 5.0)
    error = found[0].T @ world[0].as_matrix() @ world.inv().as_matrix() @ found  # the worlds differ by one rotation
    assert rotation_angle_deg(error).max() < 2


def test_chains_stars_and_pairs_have_nothing_to_be_compared_with():
    world = turning(12)
    chain = [(i, i + 1) for i in range(11)]
    star = [(0, i) for i in range(1, 12)]
    for pairs in (chain, star, [(0, 1)], []):
        pair = np.array(pairs, np.int64).reshape(-1, 2)
        rotation = relative(world, pairs) if pairs else np.zeros((0, 3, 3))
        given = RelativeRotations(num_images=12, pair=pair, rotation=rotation, evidence=np.full(len(pairs), 100.0))
        belief = judge_pairs(given, ConsistencyConfig())
        assert not belief.confirmed.any() and not belief.rejected.any()


def test_a_triangle_that_does_not_close_loses_no_pair():
    """Nothing says which of the three is wrong."""
    world = turning(3)
    rotation = relative(world, [(0, 1), (0, 2), (1, 2)])
    rotation[1] = Rotation.from_euler("y", 60, degrees=True).as_matrix() @ rotation[1]
    pair = np.array([(0, 1), (0, 2), (1, 2)])
    given = RelativeRotations(num_images=3, pair=pair, rotation=rotation, evidence=np.array([100.0, 90, 80]))
    belief = judge_pairs(given, ConsistencyConfig())
    assert not belief.confirmed.any() and not belief.rejected.any()


def two_groups(between, seed=0):
    """Two groups of eight images, each with all its pairs, and what ties them together: rotations by yaw error."""
    world = turning(16, step_deg=4.0, seed=seed)
    inside = [(i, j) for a in (0, 8) for i in range(a, a + 8) for j in range(i + 1, a + 8)]
    pairs = [pair for pair, _, _ in between]
    turned = [Rotation.from_euler("y", error, degrees=True) for _, error, _ in between]
    outside = [(world[j] * turn * world[i].inv()).as_matrix() for (i, j), turn in zip(pairs, turned, strict=True)]
    rotation = np.concatenate([relative(world, inside, seed), outside])
    evidence = np.array([200.0] * len(inside) + [amount for _, _, amount in between])
    pair = np.array(inside + pairs)
    return RelativeRotations(num_images=16, pair=pair, rotation=rotation, evidence=evidence), len(inside)


@pytest.mark.parametrize(
    ("between", "tied"),
    [
        ([((2, 9), 0, 300)], True),  # one strong pair
        ([((2, 9), 0, 40)], False),  # one weak pair
        ([((2, 9), 0, 120), ((3, 10), 70, 100), ((5, 12), -50, 90)], False),  # three that all disagree
        (
            [((2, 9), 0, 200), ((3, 10), 70, 80), ((5, 12), -50, 80), ((6, 14), 120, 80)],
            False,
        ),  # more speaks against it, though no two agree on what else
        ([((2, 9), 0, 400), ((3, 10), 70, 60)], True),  # a strong one, and little against it
        (
            [((a, b), 0, 200) for a, b in zip((1, 2, 3, 4), (8, 9, 10, 11), strict=True)]
            + [((a, b), 70, 180) for a, b in zip((4, 5, 6, 7), (12, 13, 14, 15), strict=True)],
            False,
        ),  # a tie
        (
            [((a, b), 0, 200) for a, b in zip((1, 2, 3, 4), (8, 9, 10, 11), strict=True)]
            + [((a, b), 70, 100) for a, b in zip((4, 5, 6, 7), (12, 13, 14, 15), strict=True)],
            True,
        ),  # and none
        ([((2, 9), 0, 50), ((3, 10), 0, 50), ((5, 12), 0, 40), ((6, 14), 80, 60)], True),  # weak ones that agree
    ],
)
def test_what_ties_two_groups_together(between, tied):
    given, first = two_groups(between)
    belief = judge_pairs(given, ConsistencyConfig())
    assert belief.confirmed[:first].all()
    assert bool((~belief.rejected[first:]).any()) == tied
    if tied:
        assert belief.rejected[first:].tolist() == [error != 0 for _, error, _ in between] or len(between) == 2


def test_small_groups_stay_whatever_ties_them():
    world = turning(10)
    inside = [(i, j) for i in range(8) for j in range(i + 1, 8)]
    pairs = [*inside, (7, 8), (8, 9)]
    given = RelativeRotations(
        num_images=10, pair=np.array(pairs), rotation=relative(world, pairs), evidence=np.full(len(pairs), 35.0)
    )
    assert not judge_pairs(given, ConsistencyConfig()).rejected.any()


def test_tolerances_follow_the_noise():
    world = turning(30)
    pairs = neighbours(30, reach=6)
    rotation = relative(world, pairs, noise_deg=5.0)
    given = RelativeRotations(
        num_images=30, pair=np.array(pairs), rotation=rotation, evidence=np.full(len(pairs), 100.0)
    )
    belief = judge_pairs(given, ConsistencyConfig())
    assert not belief.rejected.any() and belief.confirmed.mean() > 0.9


def test_a_long_walk_that_returns_closes():
    """What small errors add up to over 300 steps is no contradiction."""
    world = turning(300, step_deg=1.2)
    pairs = neighbours(300, reach=3, closed=True)
    given = RelativeRotations(
        num_images=300, pair=np.array(pairs), rotation=relative(world, pairs), evidence=np.full(len(pairs), 150.0)
    )
    belief = judge_pairs(given, ConsistencyConfig())
    assert belief.confirmed.mean() > 0.99 and not belief.rejected.any()


def test_order_of_pairs_and_names_of_images_do_not_matter():
    world = turning(30)
    wrong = far_pairs(30, 30)
    given, _ = with_wrong(world, neighbours(30), wrong, upright_turns(30))
    belief = judge_pairs(given, ConsistencyConfig())
    rng = np.random.default_rng(5)
    number = rng.permutation(30)
    renamed = number[given.pair]
    flipped = renamed[:, 0] > renamed[:, 1]
    rotation = np.where(flipped[:, None, None], given.rotation.transpose(0, 2, 1), given.rotation)
    order = rng.permutation(len(given.pair))
    other = RelativeRotations(
        num_images=30,
        pair=np.sort(renamed, axis=1)[order],
        rotation=rotation[order],
        evidence=given.evidence[order],
    )
    again = judge_pairs(other, ConsistencyConfig())
    assert again.rejected.tolist() == belief.rejected[order].tolist()
    same = judge_pairs(given, ConsistencyConfig())
    assert np.array_equal(same.disagreement_deg, belief.disagreement_deg)


def test_switched_off():
    world = turning(20)
    given, _ = with_wrong(world, neighbours(20), far_pairs(20, 20), upright_turns(20))
    belief = judge_pairs(given, ConsistencyConfig(enabled=False))
    assert not belief.rejected.any() and not belief.confirmed.any()
