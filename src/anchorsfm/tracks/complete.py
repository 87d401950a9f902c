"""More observations for the points of an adjusted model: complete and merge tracks (docs/method.md, Completed tracks).

A track is split where wrong matches made it contradict itself, and observations are dropped while the cameras are still
wrong. With good cameras the matches are gone through again: where one joins an observation of a point to a keypoint
that has none, the keypoint is added if the point projects onto it (completing); where it joins two points that no image
sees both of, they become one if a common position fits all their observations (merging). Schönberger and Frahm,
"Structure-from-motion revisited", CVPR 2016, 4.4.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from anchorsfm.geometry.rows import distinct_rows
from anchorsfm.scene.edit import view_of_image, with_points
from anchorsfm.scene.reconstruction import Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.residuals import pixel_errors

ROUNDS = 3
"""Each round reaches one match further from the observations a point has."""


@dataclass(frozen=True, kw_only=True)
class _Nodes:
    """Keypoints of registered images as nodes, and the matches between them."""

    image: Int[np.ndarray, "node"]
    xy: Float[np.ndarray, "node 2"]
    ends: Int[np.ndarray, "match 2"]


def complete_and_merge(
    model: Reconstruction, matches: KeypointMatches, *, max_error_px: Float[np.ndarray, "view"]
) -> Reconstruction:
    """The model with completed and merged tracks; points keep their positions or get the mean of merged ones.

    Args:
        model: adjusted cameras and points.
        matches: verified matches of the whole ImageSet, original pixels.
        max_error_px: largest reprojection error of every view, original pixels.
    """
    if not len(model.points):
        return model
    nodes, observed = _nodes(model, matches)
    point = np.full(len(nodes.image), -1)
    point[observed] = model.tracks.obs_point
    points = model.points
    for _ in range(ROUNDS):
        points, point, merged = _merge(model, nodes, points, point, max_error_px)
        point, added = _complete(model, nodes, points, point, max_error_px)
        if not merged and not added:
            break
    return _with_nodes(model, nodes, points, point)


def _nodes(model: Reconstruction, matches: KeypointMatches) -> tuple[_Nodes, Int[np.ndarray, "obs"]]:
    """Nodes of all matches between registered images and of all observations of the model, and those of the latter."""
    used = np.isin(matches.image_i, model.image_index) & np.isin(matches.image_j, model.image_index)
    image = np.concatenate([matches.image_i[used], matches.image_j[used], model.tracks.obs_image])
    xy = np.concatenate([matches.xy_i[used], matches.xy_j[used], model.tracks.obs_xy])
    keypoints, node = distinct_rows(np.column_stack([image, xy]))
    first, second, observed = np.split(node, [int(used.sum()), 2 * int(used.sum())])
    ends = np.stack([first, second], axis=1)
    return _Nodes(image=keypoints[:, 0].astype(np.int64), xy=keypoints[:, 1:], ends=ends), observed


def _complete(
    model: Reconstruction,
    nodes: _Nodes,
    points: Float[np.ndarray, "point 3"],
    point: Int[np.ndarray, "node"],
    max_error_px: Float[np.ndarray, "view"],
) -> tuple[Int[np.ndarray, "node"], bool]:
    """Give free nodes the point of a matched node where it projects onto them; the smallest error wins."""
    ends = np.concatenate([nodes.ends, nodes.ends[:, ::-1]])
    known, free = point[ends[:, 0]], point[ends[:, 1]] < 0
    rows = free & (known >= 0)
    candidate_point, candidate_node = known[rows], ends[rows, 1]
    num_images = int(nodes.image.max()) + 1
    seen = np.unique(point[point >= 0] * num_images + nodes.image[point >= 0])
    fresh = ~np.isin(candidate_point * num_images + nodes.image[candidate_node], seen)
    candidate_point, candidate_node = candidate_point[fresh], candidate_node[fresh]
    if not len(candidate_point):
        return point, False
    error = _errors(model, nodes, points[candidate_point], candidate_node)
    good = error <= max_error_px[view_of_image(model)[nodes.image[candidate_node]]]
    order = np.flatnonzero(good)[np.argsort(error[good], kind="stable")]
    candidate_point, candidate_node = candidate_point[order], candidate_node[order]
    first_of_node = _first(candidate_node)
    candidate_point, candidate_node = candidate_point[first_of_node], candidate_node[first_of_node]
    first_of_view = _first(candidate_point * num_images + nodes.image[candidate_node])
    completed = point.copy()
    completed[candidate_node[first_of_view]] = candidate_point[first_of_view]
    return completed, bool(first_of_view.any())


def _first(values: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Whether each value occurs for the first time."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _merge(
    model: Reconstruction,
    nodes: _Nodes,
    points: Float[np.ndarray, "point 3"],
    point: Int[np.ndarray, "node"],
    max_error_px: Float[np.ndarray, "view"],
) -> tuple[Float[np.ndarray, "point 3"], Int[np.ndarray, "node"], bool]:
    """Join pairs of matched points that no image sees both of and whose mean fits all observations of both."""
    a, b = np.sort(point[nodes.ends], axis=1).T
    joined = (a >= 0) & (a != b)
    if not joined.any():
        return points, point, False
    pairs, support = np.unique(np.stack([a[joined], b[joined]], axis=1), axis=0, return_counts=True)
    pairs = pairs[np.argsort(-support, kind="stable")]
    # each point takes part in one merge a round, the best supported one
    pairs = pairs[_first_use(pairs)]
    length = np.bincount(point[point >= 0], minlength=len(points)).astype(float)
    weight = length[pairs] / length[pairs].sum(1, keepdims=True)
    mean = (points[pairs] * weight[:, :, None]).sum(1)
    role = np.full(len(points), -1)
    role[pairs[:, 0]] = role[pairs[:, 1]] = np.arange(len(pairs))
    members = np.flatnonzero((point >= 0) & (role[np.maximum(point, 0)] >= 0))
    pair = role[point[members]]
    fits = _errors(model, nodes, mean[pair], members) <= max_error_px[view_of_image(model)[nodes.image[members]]]
    bad = np.bincount(pair[~fits], minlength=len(pairs)) > 0
    num_images = int(nodes.image.max()) + 1
    key, count = np.unique(pair * num_images + nodes.image[members], return_counts=True)
    bad[key[count > 1] // num_images] = True
    target = np.arange(len(points))
    target[pairs[~bad, 1]] = pairs[~bad, 0]
    moved = points.copy()
    moved[pairs[~bad, 0]] = mean[~bad]
    return moved, np.where(point >= 0, target[np.maximum(point, 0)], -1), bool((~bad).any())


def _first_use(pairs: Int[np.ndarray, "pair 2"]) -> Bool[np.ndarray, "pair"]:
    used: set[int] = set()
    keep = np.zeros(len(pairs), bool)
    for row, (a, b) in enumerate(pairs.tolist()):
        if a not in used and b not in used:
            used |= {a, b}
            keep[row] = True
    return keep


def _errors(
    model: Reconstruction, nodes: _Nodes, world: Float[np.ndarray, "n 3"], node: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """Reprojection errors in original pixels of one world point per node."""
    single = Tracks(obs_point=np.arange(len(node)), obs_image=nodes.image[node], obs_xy=nodes.xy[node])
    return pixel_errors(with_points(model, single, world))


def _with_nodes(
    model: Reconstruction, nodes: _Nodes, points: Float[np.ndarray, "point 3"], point: Int[np.ndarray, "node"]
) -> Reconstruction:
    node = np.flatnonzero(point >= 0)
    node = node[np.lexsort((nodes.image[node], point[node]))]
    kept, obs_point = np.unique(point[node], return_inverse=True)
    tracks = Tracks(obs_point=obs_point.reshape(-1), obs_image=nodes.image[node], obs_xy=nodes.xy[node])
    return with_points(model, tracks, points[kept])
