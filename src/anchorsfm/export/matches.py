"""The observations of a model as a COLMAP database, for COLMAP's own tools to go on from.

Keypoints are the observations, matches are pairs of observations of one point. The two-view geometry of a pair is that
of its poses: E = [t]x R with j_from_i = [R | t]; all matches agree with it. Identifiers are those of exported COLMAP
models: image_id = position in the model + 1, camera_id likewise.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from anchorsfm.colmap.database import (
    GeometryKind,
    PairMatches,
    TwoViewGeometry,
    number_keypoints,
    write_database,
)
from anchorsfm.geometry.transforms import camera_centres, compose, cross_matrix, invert
from anchorsfm.results.model import StoredModel
from anchorsfm.scene.errors import InputError
from anchorsfm.scene.reconstruction import Reconstruction, Tracks

FILE = "database.db"


def export_database(entry: StoredModel, folder: Path) -> None:
    """Write database.db.

    Raises:
        InputError: the model has no observations.
        StorageError: the file cannot be written.
    """
    model = entry.model
    if not len(model.tracks.obs_point):
        raise InputError(f"the model in {entry.folder} has no observations to make a database of")
    first, second = _pairs_of_observations(model.tracks)
    image, xy = model.tracks.obs_image, model.tracks.obs_xy
    matches = number_keypoints(len(model.image_index), image[first], image[second], xy[first], xy[second])
    write_database(
        folder / FILE,
        entry.view_names,
        model.cameras,
        model.camera_index,
        matches,
        _geometries(model, matches, first, second),
        has_focal_prior=np.ones(len(model.cameras), bool),
    )


def _pairs_of_observations(tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Rows of every two observations of a point, the earlier image first."""
    order = np.lexsort((tracks.obs_image, tracks.obs_point))
    length = np.bincount(tracks.obs_point)
    start = np.cumsum(length) - length
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    for size in np.unique(length[length >= 2]).tolist():
        a, b = np.triu_indices(size, 1)
        rows = start[length == size][:, None]
        first.append(order[rows + a].ravel())
        second.append(order[rows + b].ravel())
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *first]), np.concatenate([none, *second])


def _geometries(
    model: Reconstruction, matches: PairMatches, first: np.ndarray, second: np.ndarray
) -> list[TwoViewGeometry]:
    """Relative poses of all matched pairs."""
    angle = _median_angles(model, matches, first, second)
    result = []
    for k, (i, j) in enumerate(matches.pair.tolist()):
        pose = compose(model.cam_from_world[j], invert(model.cam_from_world[i]))
        result.append(
            TwoViewGeometry(
                kind=GeometryKind.CALIBRATED,
                inlier=np.ones(int(matches.start[k + 1] - matches.start[k]), bool),
                j_from_i=pose,
                essential=cross_matrix(pose[:, 3]) @ pose[:, :3],
                angle_deg=float(angle[k]),
            )
        )
    return result


def _median_angles(
    model: Reconstruction, matches: PairMatches, first: np.ndarray, second: np.ndarray
) -> Float[np.ndarray, "pair"]:
    """Median angle in degrees at which the rays of a pair meet."""
    tracks, centres = model.tracks, camera_centres(model.cam_from_world)
    rays = model.points[tracks.obs_point] - centres[tracks.obs_image]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip((rays[first] * rays[second]).sum(axis=1), -1, 1)))
    pair = np.column_stack([tracks.obs_image[first], tracks.obs_image[second]])
    distinct, row = np.unique(pair, axis=0, return_inverse=True)
    assert np.array_equal(distinct, matches.pair)
    order = np.lexsort((angle, row.reshape(-1)))
    bounds = np.searchsorted(row.reshape(-1)[order], np.arange(len(distinct) + 1))
    return np.asarray(angle[order][(bounds[:-1] + bounds[1:]) // 2], np.float64)
