"""The unknowns of a linearised model whose views are tied by rigs: poses of frames and of sensors.

With the notation of `linearised`, for a view of a sensor with pose (S, b: its centre in the rig) and a frame (R, c):

    frame:   w_view = S w,   dc_view = dc + R^T (b x w)       as R^T exp(-[w]x) b = R^T (b + b x w) to first order
    sensor:  w_view = w,     dc_view = R^T db
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array

from anchorsfm.colmap.bundle import baselines_are_fixed
from anchorsfm.geometry.mean_poses import mean_pose
from anchorsfm.geometry.transforms import camera_centres, compose, cross_matrix, invert
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.linearised import Linearised


@dataclass(frozen=True, kw_only=True)
class Units:
    """What has a pose of its own in a model: views, and frames of rigs."""

    of_view: Int[np.ndarray, "view"]
    poses: Float[np.ndarray, "unit 3 4"]
    """unit_from_world."""
    lever: Float[np.ndarray, "view"]
    """Distance of each view from the origin of its unit."""
    sensors: tuple[int, ...]
    """Sensors whose poses are unknowns."""
    has_scale: bool
    """Whether baselines that are fixed say how large the model is."""


def units_of(model: Reconstruction) -> Units:
    """Frames of the known sensors of a model, and views by themselves."""
    rigs, count = model.rigs, len(model.image_index)
    if rigs is None:
        return Units(
            of_view=np.arange(count), poses=model.cam_from_world, lever=np.zeros(count), sensors=(), has_scale=False
        )
    frame = rigs.frames(model.image_index)
    key = [("view", view) if number < 0 else ("frame", number) for view, number in enumerate(frame.tolist())]
    rows = {entry: row for row, entry in enumerate(dict.fromkeys(key))}
    of_view = np.array([rows[entry] for entry in key], np.int64)
    poses, lever = np.zeros((len(rows), 3, 4)), np.zeros(count)
    for row in range(len(rows)):
        views = np.flatnonzero(of_view == row)
        if frame[views[0]] < 0:
            poses[row] = model.cam_from_world[views[0]]
            continue
        sensor_from_rig = rigs.sensor_from_rig[rigs.sensor[model.image_index[views]]]
        poses[row] = mean_pose(compose(invert(sensor_from_rig), model.cam_from_world[views]))
        lever[views] = np.linalg.norm(camera_centres(sensor_from_rig), axis=1)
    used = np.unique(rigs.sensor[model.image_index[frame >= 0]])
    return Units(
        of_view=of_view,
        poses=poses,
        lever=lever,
        sensors=tuple(used[~rigs.is_fixed[used]].tolist()),
        has_scale=baselines_are_fixed(model),
    )


def with_units(lin: Linearised, model: Reconstruction, units: Units) -> Linearised:
    """The linearised model with the poses of units as unknowns, and of sensors after the parameters of the cameras."""
    if model.rigs is None:
        return lin
    views, num = len(model.image_index), len(units.poses)
    return replace(
        lin,
        by_unknown=csr_array(lin.by_unknown @ _view_steps(model, units, lin.by_unknown.shape[1] - 6 * views)),
        view=units.of_view[lin.view],
        first_param=tuple(first + 6 * (num - views) for first in lin.first_param),
    )


def of_views(
    model: Reconstruction, units: Units, steps: Float[np.ndarray, "step unknown"]
) -> Float[np.ndarray, "step view_unknown"]:
    """Steps of the unknowns of `with_units` as those of views and cameras."""
    if model.rigs is None:
        return steps
    return np.asarray(steps @ _view_steps(model, units, sum(len(camera.params) for camera in model.cameras)).T)


def _view_steps(model: Reconstruction, units: Units, others: int) -> csr_array:
    """Derivatives of the poses of views and `others` unknowns by those of units, the others and sensors."""
    rigs, views, num = model.rigs, len(model.image_index), len(units.poses)
    assert rigs is not None
    entries: list[tuple[int, int, np.ndarray]] = []
    """Row and column of a block, and the block."""
    for view, unit in enumerate(units.of_view.tolist()):
        sensor = int(rigs.sensor[model.image_index[view]])
        if rigs.frames(model.image_index[view : view + 1])[0] < 0:
            entries.append((6 * view, 6 * unit, np.eye(6)))
            continue
        centre, turned = camera_centres(rigs.sensor_from_rig[sensor]), units.poses[unit, :, :3].T
        block = np.eye(6)
        block[:3, :3], block[3:, :3] = rigs.sensor_from_rig[sensor, :, :3], turned @ cross_matrix(centre)
        entries.append((6 * view, 6 * unit, block))
        if sensor in units.sensors:
            block = np.eye(6)
            block[3:, 3:] = turned
            entries.append((6 * view, 6 * num + others + 6 * units.sensors.index(sensor), block))
    row = np.concatenate(
        [np.repeat(start + np.arange(6), 6) for start, _, _ in entries] + [6 * views + np.arange(others)]
    )
    column = np.concatenate(
        [np.tile(start + np.arange(6), 6) for _, start, _ in entries] + [6 * num + np.arange(others)]
    )
    value = np.concatenate([*(block.ravel() for _, _, block in entries), np.ones(others)])
    shape = (6 * views + others, 6 * num + others + 6 * len(units.sensors))
    return csr_array(coo_array((value, (row, column)), shape=shape))
