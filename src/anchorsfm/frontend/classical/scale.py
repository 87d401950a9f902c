"""One scale for all pairs: every two-view pose has a baseline of length 1, and depths seen from one image must agree.

Unknown: log scale s_n of every pair n. Two pairs n, m that see the same keypoints of a common image with log depths
d_n, d_m give one equation s_n + median(d_n - d_m) = s_m, weighted by how many keypoints agree how well. Solved by
iteratively reweighted least squares (weights 1/|residual|, i.e. the L1 norm, robust against wrong poses).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, diags_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.sparse.linalg import spsolve

from anchorsfm.frontend.classical.two_view import RelativePose
from anchorsfm.geometry.links import connected_groups
from anchorsfm.scene.pairs import PairStatus

MIN_COMMON = 8
"""Fewest common keypoints that compare two pairs."""
PARTNERS = 6
"""Every pair is compared with so many others per image, those with most keypoints in common (cost linear in pairs)."""
MAX_SPREAD = 0.25
"""Log depth ratios that scatter more (robust standard deviation) are no evidence."""
MIN_SPREAD = 0.01
ITERATIONS = 20
MIN_RESIDUAL = 0.003


@dataclass(frozen=True, kw_only=True)
class _Sighting:
    """Keypoints of one image with their log depths from one pair, sorted by keypoint."""

    pair: int
    keypoint: Int[np.ndarray, "match"]
    log_depth: Float[np.ndarray, "match"]


@dataclass(frozen=True, kw_only=True)
class _Ratios:
    """Measured differences s_b - s_a of log scales."""

    a: Int[np.ndarray, "row"]
    b: Int[np.ndarray, "row"]
    difference: Float[np.ndarray, "row"]
    weight: Float[np.ndarray, "row"]


def synchronise(pairs: Int[np.ndarray, "pair 2"], poses: list[RelativePose]) -> Float[np.ndarray, "pair"]:
    """Length of the baseline of every pair. Pairs without depth get 1.

    Pairs that can be compared share one unit, chosen such that the median depth of their matches is 1; where the pair
    graph falls apart, every group of pairs has its own.
    """
    ratios = _compare(pairs, poses)
    num = len(pairs)
    group = connected_groups(num, np.stack([ratios.a, ratios.b], axis=1))
    log_scale = _solve(ratios, group, num)
    with_depth = np.array([p.status is PairStatus.OK for p in poses], bool)
    median = np.array([np.median(np.log(p.depth)) if p.status is PairStatus.OK else 0.0 for p in poses])
    for g in np.unique(group[with_depth]):
        member = with_depth & (group == g)
        log_scale[member] -= np.median(log_scale[member] + median[member])
    return np.where(with_depth, np.exp(log_scale), 1.0)


def _compare(pairs: Int[np.ndarray, "pair 2"], poses: list[RelativePose]) -> _Ratios:
    seen: dict[int, list[_Sighting]] = {}
    for n, (pair, pose) in enumerate(zip(pairs.tolist(), poses, strict=True)):
        if pose.status is not PairStatus.OK:
            continue
        for side in (0, 1):
            order = np.argsort(pose.keypoint[:, side], kind="stable")
            sighting = _Sighting(pair=n, keypoint=pose.keypoint[order, side], log_depth=np.log(pose.depth[order, side]))
            seen.setdefault(pair[side], []).append(sighting)
    rows = [row for image in sorted(seen) for row in _compare_in_image(seen[image])]
    table = np.array(rows, float).reshape(-1, 4)
    return _Ratios(
        a=table[:, 0].astype(np.int64), b=table[:, 1].astype(np.int64), difference=table[:, 2], weight=table[:, 3]
    )


def _compare_in_image(sightings: list[_Sighting]) -> Iterator[tuple[int, int, float, float]]:
    for p, q in _partners(sightings):
        _, rows_p, rows_q = np.intersect1d(
            sightings[p].keypoint, sightings[q].keypoint, assume_unique=True, return_indices=True
        )
        ratio = sightings[p].log_depth[rows_p] - sightings[q].log_depth[rows_q]
        median = float(np.median(ratio))
        spread = 1.4826 * float(np.median(np.abs(ratio - median)))
        if spread < MAX_SPREAD:
            weight = np.sqrt(len(ratio)) / max(spread, MIN_SPREAD)
            yield sightings[p].pair, sightings[q].pair, median, weight


def _partners(sightings: list[_Sighting]) -> list[tuple[int, int]]:
    """Which sightings of one image to compare: the best partners of each, and a maximum spanning tree."""
    num = len(sightings)
    row = np.repeat(np.arange(num), [len(s.keypoint) for s in sightings])
    column = np.concatenate([s.keypoint for s in sightings])
    incidence = csr_array((np.ones(len(row), np.int32), (row, column)), shape=(num, int(column.max()) + 1))
    common = (incidence @ incidence.T).toarray()
    np.fill_diagonal(common, 0)
    common[common < MIN_COMMON] = 0
    chosen = set()
    for p, best in enumerate(np.argsort(-common, axis=1, kind="stable")[:, :PARTNERS]):
        chosen |= {(min(p, q), max(p, q)) for q in best.tolist() if common[p, q] > 0}
    distance = np.where(common > 0, 1.0 / np.maximum(common, 1), 0.0)  # 0: no edge
    tree = minimum_spanning_tree(csr_array(distance)).tocoo()
    chosen |= {(min(p, q), max(p, q)) for p, q in zip(tree.row.tolist(), tree.col.tolist(), strict=True)}
    return sorted(chosen)


def _solve(ratios: _Ratios, group: Int[np.ndarray, "pair"], num: int) -> Float[np.ndarray, "pair"]:
    """Log scales by IRLS; the first pair of every group is held at 0."""
    if len(ratios.a) == 0:
        return np.zeros(num)
    row = np.arange(len(ratios.a))
    ones = np.ones(len(row))
    design = csr_array(
        (np.concatenate([ones, -ones]), (np.concatenate([row, row]), np.concatenate([ratios.b, ratios.a]))),
        shape=(len(row), num),
    )
    held = np.zeros(num)
    held[np.unique(group, return_index=True)[1]] = 1.0
    robust = np.ones(len(row))
    log_scale = np.zeros(num)
    for _ in range(ITERATIONS):
        weight = ratios.weight**2 * robust
        weight = weight / weight.mean()
        normal = design.T @ diags_array(weight) @ design + diags_array(held)
        log_scale = spsolve(normal.tocsc(), design.T @ (weight * ratios.difference))
        robust = 1.0 / np.maximum(np.abs(design @ log_scale - ratios.difference), MIN_RESIDUAL)
    return np.asarray(log_scale)
