"""Which views to compare each view with: those that share many points with it, seen from another place.

With n shared points and median angle a between the rays to them, a neighbour is worth n times a weight that rises to
one at 4 degrees, where depth is well conditioned, and falls beyond 20, where the pictures look too different.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.scene.reconstruction import Reconstruction

GOOD_FROM_DEG, GOOD_TO_DEG, FALL_DEG = 4.0, 20.0, 15.0
MIN_SHARED = 8
"""Fewer shared points tell nothing."""
CANDIDATES = 4
"""Views with the most shared points that are looked at more closely, times the neighbours wanted."""
MAX_SAMPLED = 200
"""Points whose angles are measured for a pair."""


def choose_neighbours(model: Reconstruction, count: int) -> tuple[Int[np.ndarray, "_"], ...]:
    """For each view of a model up to `count` others, the best first; rows of the model's views."""
    seen = _visibility(model)
    shared = (seen @ seen.T).tocsr()
    centres = camera_centres(model.cam_from_world)
    return tuple(_best(model, seen, shared, centres, view, count) for view in range(len(model.image_index)))


def _visibility(model: Reconstruction) -> csr_array:
    """Which view sees which point."""
    tracks = model.tracks
    row = np.full(int(max(model.image_index.max(), tracks.obs_image.max(initial=0))) + 1, -1)
    row[model.image_index] = np.arange(len(model.image_index))
    view = row[tracks.obs_image]
    kept = view >= 0
    shape = (len(model.image_index), len(model.points))
    return csr_array((np.ones(int(kept.sum()), np.int32), (view[kept], tracks.obs_point[kept])), shape=shape)


def _best(
    model: Reconstruction,
    seen: csr_array,
    shared: csr_array,
    centres: Float[np.ndarray, "view 3"],
    view: int,
    count: int,
) -> Int[np.ndarray, "_"]:
    entries = slice(shared.indptr[view], shared.indptr[view + 1])
    others, num = shared.indices[entries].astype(np.int64), shared.data[entries]
    good = (others != view) & (num >= MIN_SHARED)
    others, num = others[good], num[good]
    first = np.lexsort((others, -num))[: CANDIDATES * count]
    others, num = others[first], num[first]
    own = _points_of(seen, view)
    worth = np.zeros(len(others))
    for k, other in enumerate(others.tolist()):
        common = np.intersect1d(own, _points_of(seen, other), assume_unique=True)
        common = common[:: max(1, len(common) // MAX_SAMPLED)]
        worth[k] = num[k] * _angle_weight(_median_angle_deg(model.points[common], centres[view], centres[other]))
    return others[np.lexsort((others, -worth))[:count]]


def _points_of(seen: csr_array, view: int) -> Int[np.ndarray, "_"]:
    return np.sort(seen.indices[seen.indptr[view] : seen.indptr[view + 1]]).astype(np.int64)


def _median_angle_deg(
    points: Float[np.ndarray, "point 3"], a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]
) -> float:
    u, v = points - a, points - b
    sine, cosine = np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(axis=1)
    return float(np.degrees(np.median(np.arctan2(sine, cosine))))


def _angle_weight(angle_deg: float) -> float:
    rise = min(angle_deg / GOOD_FROM_DEG, 1.0)
    return rise * float(np.exp(-((max(angle_deg - GOOD_TO_DEG, 0.0) / FALL_DEG) ** 2)))
