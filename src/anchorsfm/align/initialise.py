"""Where the unknowns start: similarities of the views, from pairs of canonical points and from known poses.

A view's similarity maps points of its camera frame, at the front end's scale, into the world: X = s R x + C.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from anchorsfm.align.observations import DirectedObservations
from anchorsfm.align.problem import Observations
from anchorsfm.align.synchronise import PairSimilarities, Similarities, chain, contradicted, joined, synchronise
from anchorsfm.geometry.transforms import fit_similarities

NUM_ROUNDS = 12
"""Rounds of iteratively reweighted least squares per edge."""
MIN_TOLERANCE = 0.03
"""Residual, as a share of depth, below which a correspondence counts fully."""
MAX_PER_EDGE = 600
"""Correspondences that a similarity is fitted to."""
CONFIRMED = 2.0**26
"""By this factor confirmed pairs outrank others in the spanning tree; a power of two, so that no bits are lost."""
UNCONFIRMED = 1e-6
"""Evidence of a pair that is not confirmed: it decides only what no other pair says anything about."""
FITS_AT_A_TIME = 512
"""Pairs whose similarities are fitted together: bounds the memory."""
MIN_PARALLAX = np.radians(1.0)
MIN_TRIANGULATED = 10


PointsOf = Callable[[DirectedObservations, Int[np.ndarray, "some"]], Float[np.ndarray, "some 3"]]
"""Points of some rows of the observations in their source camera frames at the front end's scale."""


@dataclass(frozen=True, kw_only=True)
class Correspondences:
    """The same points in two frames."""

    source: Float[np.ndarray, "point 3"]
    target: Float[np.ndarray, "point 3"]
    weight: Float[np.ndarray, "point"]

    def __len__(self) -> int:
        return len(self.weight)


def coincident(pivot_offset: Float[np.ndarray, "view 3"]) -> Similarities:
    """All cameras look the same way, with their focal planes' centres at the origin."""
    num = len(pivot_offset)
    rotation = np.tile(np.eye(3), (num, 1, 1))
    return Similarities(scale=np.ones(num), rotation=rotation, centre=-pivot_offset)


def from_pairs(
    observations: Observations, points: PointsOf, fallback: Similarities, confirmed: Int[np.ndarray, "pair 2"]
) -> Similarities:
    """Chain robust similarities along the maximum spanning tree of the pairs, by number of correspondences.

    Well matching pairs come first, of these the `confirmed` ones; a badly matching pair is used through its regression
    targets where nothing else connects. Views that stay unconnected keep `fallback`. Where confirmed pairs outside the
    tree contradict the chain, all of them decide together (see `synchronise`).
    """
    num_views = len(fallback.scale)
    edges = _edges(observations, num_views, confirmed)
    order, parent = _spanning_order(edges, num_views)
    tree = np.array([(child, parent[child]) for child in order[1:].tolist() if parent[child] >= 0], np.int64)
    tree = tree.reshape(-1, 2)
    links = _fitted(observations, points, tree, edges)
    if not len(links.pair):
        return fallback
    chained = chain(fallback, order[1:].tolist(), parent, links)
    first = {(min(pair), max(pair)) for pair in tree.tolist()}
    others = [pair for pair in np.sort(confirmed, axis=1).tolist() if tuple(pair) not in first]
    rest = _fitted(observations, points, np.array(others, np.int64).reshape(-1, 2), edges)
    if not contradicted(chained, rest).any():
        return chained
    return synchronise(chained, joined(links, rest), int(order[0]))


def _fitted(
    observations: Observations,
    points: PointsOf,
    pairs: Int[np.ndarray, "pair 2"],
    edges: Float[np.ndarray, "view view"],
) -> PairSimilarities:
    """Similarities of the pairs about which something is known; evidence are the correspondences they are fitted to."""
    parts = []
    for start in range(0, len(pairs), FITS_AT_A_TIME):
        some = pairs[start : start + FITS_AT_A_TIME]
        found = [(pair, _link(observations, points, *pair)) for pair in some.tolist()]
        known = [(pair, link) for pair, link in found if link is not None]
        if known:
            scale, pose = robust_similarities([link for _, link in known])
            pair = np.array([pair for pair, _ in known], np.int64)
            parts.append((pair, scale, pose))
    if not parts:
        return PairSimilarities.none()
    pair, scale, pose = (np.concatenate(column) for column in zip(*parts, strict=True))
    weight = edges[pair[:, 0], pair[:, 1]]
    is_confirmed = weight >= CONFIRMED
    return PairSimilarities(
        pair=pair,
        scale=scale,
        rotation=pose[:, :, :3],
        shift=pose[:, :, 3],
        evidence=np.where(is_confirmed, np.minimum(weight / CONFIRMED, MAX_PER_EDGE), UNCONFIRMED),
    )


def _edges(
    observations: Observations, num_views: int, confirmed: Int[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "view view"]:
    """Weights for the spanning tree: matches outrank regression targets, and confirmed pairs others."""
    weight = np.zeros((num_views, num_views))
    for rows, rank in ((observations.fallback, 1e-9), (observations.matches, 1.0)):
        count = np.bincount(rows.pair, minlength=len(rows.source)) * rank
        np.maximum.at(weight, (rows.source, rows.target), count)
        np.maximum.at(weight, (rows.target, rows.source), count)
    first, second = np.concatenate([confirmed, confirmed[:, ::-1]]).T
    weight[first, second] *= CONFIRMED
    return weight


def _spanning_order(
    weight: Float[np.ndarray, "view view"], num_views: int
) -> tuple[Int[np.ndarray, "reached"], Int[np.ndarray, "view"]]:
    tree = minimum_spanning_tree(csr_array(-weight))
    hub = int(weight.sum(axis=1).argmax())
    order, parent = breadth_first_order(tree, hub, directed=False)
    if len(order) < num_views:  # keep the pieces: each starts from the fallback at its own hub
        label = connected_components(tree, directed=False)[1]
        for piece in np.unique(label):
            members = np.flatnonzero(label == piece)
            if hub not in members:
                start = int(members[weight[members].sum(axis=1).argmax()])
                more, up = breadth_first_order(tree, start, directed=False)
                parent[more[1:]] = up[more[1:]]
                order = np.concatenate([order, more[1:]])
    return order, parent


def _link(observations: Observations, points: PointsOf, child: int, parent: int) -> Correspondences | None:
    """Points of a view and where they are in the frame of its parent, or None if nothing is known."""
    matches, count = observations.matches, len(observations.matches) // 2
    first, second = _rows(matches, child, parent), _rows(matches, parent, child)
    if len(first) >= 3:
        # directed rows of both directions list the same matches in the same order
        assert (first % count == second % count).all()
        first, second = first[spread(len(first))], second[spread(len(first))]
        return Correspondences(
            source=points(matches, first), target=points(matches, second), weight=matches.weight[first].astype(float)
        )
    fallback = observations.fallback
    forward, backward = _rows(fallback, child, parent), _rows(fallback, parent, child)
    forward, backward = forward[spread(len(forward))], backward[spread(len(backward))]
    source = np.concatenate([points(fallback, forward), fallback.goal[backward]])
    target = np.concatenate([fallback.goal[forward], points(fallback, backward)])
    if len(source) < 3:
        return None
    weight = fallback.weight[np.concatenate([forward, backward])].astype(float)
    return Correspondences(source=source, target=target, weight=weight)


def spread(count: int) -> Int[np.ndarray, "some"]:
    """Indices below a count, evenly spread, at most `MAX_PER_EDGE`."""
    kept = min(count, MAX_PER_EDGE)
    return np.arange(kept) * count // max(kept, 1)


def _rows(rows: DirectedObservations, source: int, target: int) -> Int[np.ndarray, "found"]:
    pair = np.flatnonzero((rows.source == source) & (rows.target == target))
    if len(pair) == 0:
        return np.zeros(0, np.int64)
    return np.arange(*np.searchsorted(rows.pair, [pair[0], pair[0] + 1]))


def robust_similarity(
    source: Float[np.ndarray, "point 3"], target: Float[np.ndarray, "point 3"], weight: Float[np.ndarray, "point"]
) -> tuple[float, Float[np.ndarray, "3 4"]]:
    """Similarity from source to target by IRLS with weights of Geman-McClure's type on residuals relative to depth."""
    scale, pose = robust_similarities([Correspondences(source=source, target=target, weight=weight)])
    return float(scale[0]), pose[0]


def robust_similarities(
    links: Sequence[Correspondences],
) -> tuple[Float[np.ndarray, "link"], Float[np.ndarray, "link 3 4"]]:
    """`robust_similarity` of many sets of correspondences at once."""
    count = np.array([len(link) for link in links])
    slot = int(count.max(initial=1))
    used = np.arange(slot) < count[:, None]
    source, target, weight = np.zeros((len(links), slot, 3)), np.zeros((len(links), slot, 3)), np.zeros(used.shape)
    for k, link in enumerate(links):
        source[k, : count[k]], target[k, : count[k]], weight[k, : count[k]] = link.source, link.target, link.weight
    depth = np.maximum(np.abs(target[:, :, 2]), 1e-6)
    base = np.where(used, np.maximum(weight, 1e-6), 0.0) / depth**2
    middle = ((count - 1) // 2, count // 2)  # the ranks of a median
    row, current = np.arange(len(links)), base
    for _ in range(NUM_ROUNDS):
        scale, pose = fit_similarities(source, target, current)
        moved = scale[:, None, None] * source @ np.swapaxes(pose[:, :, :3], 1, 2) + pose[:, None, :, 3]
        residual = np.sqrt(((moved - target) ** 2).sum(-1)) / depth
        ordered = np.sort(np.where(used, residual, np.inf), axis=1)
        median = (ordered[row, middle[0]] + ordered[row, middle[1]]) / 2
        tolerance = np.maximum(MIN_TOLERANCE, 1.5 * median)[:, None]
        current = base / (1 + (residual / tolerance) ** 2) ** 2
    scale, pose = fit_similarities(source, target, current)
    return np.maximum(scale, 1e-6), pose


def onto_known(
    base: Similarities,
    known: Sequence[Float[np.ndarray, "3 4"] | None],
    triangulated_scale: Float[np.ndarray, "view"],
    parent: Int[np.ndarray, "view"],
) -> Similarities:
    """Put views with known world_from_cam there, the others where their nearest known tree neighbour takes them.

    triangulated_scale: scales that the known poses imply, NaN where they imply none.
    """
    is_known = np.array([pose is not None for pose in known])
    scale, rotation, centre = base.scale.copy(), base.rotation.copy(), base.centre.copy()
    has_scale = np.isfinite(triangulated_scale)
    change = triangulated_scale[has_scale] / base.scale[has_scale]
    scale[is_known] = np.where(
        has_scale, triangulated_scale, base.scale * (np.exp(np.median(np.log(change))) if len(change) else 1.0)
    )[is_known]
    for view, pose in enumerate(known):
        if pose is not None:
            rotation[view], centre[view] = pose[:, :3], pose[:, 3]
    nearest = _nearest_known(parent, is_known)
    for view in np.flatnonzero(~is_known).tolist():
        k = int(nearest[view])
        factor = float(scale[k] / base.scale[k])
        turn = rotation[k] @ base.rotation[k].T
        scale[view] = factor * base.scale[view]
        rotation[view] = turn @ base.rotation[view]
        centre[view] = centre[k] + factor * turn @ (base.centre[view] - base.centre[k])
    return Similarities(scale=scale, rotation=rotation, centre=centre)


def _nearest_known(parent: Int[np.ndarray, "view"], is_known: Bool[np.ndarray, "view"]) -> Int[np.ndarray, "view"]:
    """For every view the known view fewest tree edges away (the smallest index of several)."""
    nearest = np.where(is_known, np.arange(len(parent)), -1)
    child = np.flatnonzero(parent >= 0)
    while (nearest < 0).any():
        before = nearest.copy()
        for a, b in ((child, parent[child]), (parent[child], child)):
            for view, other in zip(a.tolist(), b.tolist(), strict=True):
                if before[view] < 0 and before[other] >= 0:
                    found = before[other]
                    nearest[view] = found if nearest[view] < 0 else min(nearest[view], found)
        assert (nearest != before).any(), "the tree does not span the views"
    return nearest


def triangulated_scales(
    observations: Observations,
    points: PointsOf,
    known: Sequence[Float[np.ndarray, "3 4"] | None],
) -> Float[np.ndarray, "view"]:
    """Median over matches of triangulated depth / front end depth, per view with a known world_from_cam."""
    matches, num_pairs = observations.matches, observations.num_pairs
    log_ratios: list[list[np.ndarray]] = [[] for _ in known]
    for pair in range(num_pairs):
        i, j = int(matches.source[pair]), int(matches.target[pair])
        pose_i, pose_j = known[i], known[j]
        if pose_i is None or pose_j is None:
            continue
        rows = np.arange(*np.searchsorted(matches.pair, [pair, pair + 1]))
        point_i, point_j = points(matches, rows), points(matches, rows + len(matches) // 2)
        depth_i, depth_j, valid = _triangulate(pose_i, pose_j, point_i, point_j)
        log_ratios[i].append(np.log(depth_i[valid] / point_i[valid, 2]))
        log_ratios[j].append(np.log(depth_j[valid] / point_j[valid, 2]))
    scales = np.full(len(known), np.nan)
    for view, parts in enumerate(log_ratios):
        values = np.concatenate(parts) if parts else np.zeros(0)
        if len(values) >= MIN_TRIANGULATED:
            scales[view] = np.exp(np.median(values))
    return scales


def _triangulate(
    pose_i: Float[np.ndarray, "3 4"],
    pose_j: Float[np.ndarray, "3 4"],
    point_i: Float[np.ndarray, "match 3"],
    point_j: Float[np.ndarray, "match 3"],
) -> tuple[Float[np.ndarray, "match"], Float[np.ndarray, "match"], Bool[np.ndarray, "match"]]:
    """Depths of the points closest to both rays, and where they mean something (world_from_cam poses)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ray_i = point_i / point_i[:, 2:] @ pose_i[:, :3].T
        ray_j = point_j / point_j[:, 2:] @ pose_j[:, :3].T
        baseline = pose_j[:, 3] - pose_i[:, 3]
        ii, jj, ij = (ray_i**2).sum(1), (ray_j**2).sum(1), (ray_i * ray_j).sum(1)
        along_i, along_j = ray_i @ baseline, ray_j @ baseline
        determinant = ii * jj - ij**2
        depth_i = (jj * along_i - ij * along_j) / determinant
        depth_j = (ij * along_i - ii * along_j) / determinant
        parallel = determinant / (ii * jj) < np.sin(MIN_PARALLAX) ** 2
        valid = ~parallel & (depth_i > 0) & (depth_j > 0) & (point_i[:, 2] > 0) & (point_j[:, 2] > 0)
    return depth_i, depth_j, valid
