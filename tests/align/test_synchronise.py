"""Similarities of all views from those of pairs."""

import numpy as np
from scipy.spatial.transform import Rotation

from anchorsfm.align.synchronise import PairSimilarities, Similarities, chain, contradicted, synchronise
from anchorsfm.geometry.transforms import rotation_angle_deg

NUM = 40


def truth() -> Similarities:
    """Cameras on a ring, each with a scale of its own."""
    angle = 2 * np.pi * np.arange(NUM) / NUM
    rng = np.random.default_rng(0)
    return Similarities(
        scale=np.exp(0.3 * rng.standard_normal(NUM)),
        rotation=Rotation.from_rotvec(np.outer(angle, [0.0, 1.0, 0.0])).as_matrix(),
        centre=10 * np.stack([np.sin(angle), 0.1 * np.sin(3 * angle), np.cos(angle)], axis=1),
    )


def around(reach: int = 3) -> np.ndarray:
    """Every view with those before it on the ring: (child, parent)."""
    return np.array([((k + step) % NUM, k) for step in range(1, reach + 1) for k in range(NUM)])


def measured(of: Similarities, pair: np.ndarray, noise: float = 0.0, bias_deg: float = 0.0) -> PairSimilarities:
    """What pairs say: noise in radians, logarithms of scales and units of the parent; turns too large by a bias."""
    child, parent = pair.T
    rng = np.random.default_rng(1)
    inward = np.swapaxes(of.rotation[parent], 1, 2)
    error = noise * rng.standard_normal((len(pair), 3)) + [0.0, np.radians(bias_deg), 0.0]
    shift = np.einsum("pij,pj->pi", inward, of.centre[child] - of.centre[parent]) / of.scale[parent, None]
    return PairSimilarities(
        pair=pair,
        scale=of.scale[child] / of.scale[parent] * np.exp(noise * rng.standard_normal(len(pair))),
        rotation=inward @ of.rotation[child] @ Rotation.from_rotvec(error).as_matrix(),
        shift=shift + noise * rng.standard_normal((len(pair), 3)),
        evidence=np.full(len(pair), 100.0),
    )


def with_wrong(pairs: PairSimilarities, row: int) -> PairSimilarities:
    """One pair says something else, with more evidence than any other."""
    pairs.rotation[row] = pairs.rotation[row] @ Rotation.from_euler("y", 150, degrees=True).as_matrix()
    pairs.scale[row] *= 30
    pairs.shift[row] += 5
    pairs.evidence[row] *= 3
    return pairs


def along_the_ring(pairs: PairSimilarities) -> Similarities:
    start = Similarities(scale=np.ones(NUM), rotation=np.tile(np.eye(3), (NUM, 1, 1)), centre=np.zeros((NUM, 3)))
    start.centre[0], start.scale[0] = truth().centre[0], truth().scale[0]
    return chain(start, list(range(1, NUM)), np.arange(NUM) - 1, pairs)


def errors(found: Similarities) -> tuple[float, float, float]:
    """Largest in degrees, logarithms of scales, and lengths."""
    of = truth()
    turn_deg = rotation_angle_deg(np.swapaxes(found.rotation, 1, 2) @ of.rotation)
    return (
        float(turn_deg.max()),
        float(np.abs(np.log(found.scale / of.scale)).max()),
        float(np.linalg.norm(found.centre - of.centre, axis=1).max()),
    )


def test_exact_links_give_the_truth():
    pairs = measured(truth(), around())
    assert max(errors(along_the_ring(pairs))) < 1e-5
    assert not contradicted(along_the_ring(pairs), pairs).any()


def test_a_wrong_link_of_the_chain_is_contradicted_and_outvoted():
    pairs = with_wrong(measured(truth(), around(), noise=0.002), row=19)
    chained = along_the_ring(pairs)
    assert errors(chained)[0] > 100
    assert contradicted(chained, pairs).any()
    found = synchronise(chained, pairs, root=0)
    turn_deg, growth, distance = errors(found)
    assert turn_deg < 0.5 and growth < 0.02 and distance < 0.1
    assert contradicted(found, pairs).tolist() == [row == 19 for row in range(len(pairs.pair))]
    assert np.array_equal(found.centre[0], chained.centre[0]) and found.scale[0] == chained.scale[0]


def test_the_ends_of_a_loop_meet():
    pairs = measured(truth(), around(), noise=0.003, bias_deg=0.4)
    chained = along_the_ring(pairs)
    across = (pairs.pair[:, 0] < 3) & (pairs.pair[:, 1] > NUM - 4)
    assert contradicted(chained, pairs)[across].all()
    found = synchronise(chained, pairs, root=0)
    assert not contradicted(found, pairs).any()
    assert errors(found)[0] < 2 < 10 < errors(chained)[0]


def test_views_that_nothing_connects_with_the_root_stay():
    pairs = with_wrong(measured(truth(), around()), row=10)
    apart = np.isin(pairs.pair, [30, 31, 32]).sum(axis=1) == 1
    pairs = pairs.select(~apart)
    chained = along_the_ring(pairs)
    found = synchronise(chained, pairs, root=0)
    assert np.array_equal(found.centre[30:33], chained.centre[30:33])
    rest = np.r_[0:30, 33:NUM]
    assert rotation_angle_deg(np.swapaxes(found.rotation, 1, 2) @ truth().rotation)[rest].max() < 0.1
