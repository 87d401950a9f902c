"""Models that are brought onto surveyed points."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.control import Controlled, with_control
from anchorsfm.scene.edit import moved, select_points, with_rigs
from anchorsfm.scene.ground import GroundPoints
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_prior import JudgedModel
from anchorsfm.tracks.uncertainty import estimate_uncertainty
from rig_scene import rig_model, rig_truth

TRUTH = rig_truth(frames=5, points=200)
SURVEYED = 40
"""The last points of the scene are surveyed; those that three photographs and more show are taken."""
OPTIONS = BundleOptions(loss_scale_px=1.0, refine_focal=False, refine_distortion=False)


def ground(noise_px: float = 0.3, count: int = 9) -> GroundPoints:
    tracks = TRUTH.tracks
    length = np.bincount(tracks.obs_point)
    chosen = [k for k in range(len(length) - SURVEYED, len(length)) if length[k] >= 3][:count]
    keep = np.isin(tracks.obs_point, chosen)
    rng = np.random.default_rng(5)
    return GroundPoints(
        names=tuple(f"P{k}" for k in range(len(chosen))),
        xyz_m=TRUTH.points[chosen],
        given=TRUTH.points[chosen],
        is_check=np.arange(len(chosen)) % 3 == 2,
        point=np.searchsorted(chosen, tracks.obs_point[keep]),
        image=tracks.obs_image[keep],
        xy_px=tracks.obs_xy[keep] + noise_px * rng.standard_normal((int(keep.sum()), 2)),
    )


@pytest.fixture(scope="module")
def judged() -> JudgedModel:
    """A model made without the surveyed points, in a frame of its own."""
    start = with_rigs(rig_model(TRUTH, noise_px=0.3, pose_noise=0.0), None)
    start = select_points(start, start.tracks.obs_point < len(start.points) - SURVEYED)
    turn = Rotation.from_rotvec([0.4, -1.0, 0.3]).as_matrix()
    model, _ = adjust(moved(start, 0.2, np.concatenate([turn, [[5.0], [1.0], [2.0]]], axis=1)), OPTIONS)
    held = Held(pose=np.zeros(len(model.image_index), bool), camera=np.ones(len(model.cameras), bool))
    result = AdjustResult(model=model, dropped={}, options=OPTIONS, held=held, lenses=())
    return JudgedModel(result=result, uncertainty=estimate_uncertainty(result))


def off(model: Reconstruction) -> float:
    """Mean distance of the cameras from the truth."""
    return float(
        np.linalg.norm(camera_centres(model.cam_from_world) - camera_centres(TRUTH.cam_from_world), axis=1).mean()
    )


def controlled(judged: JudgedModel, points: GroundPoints) -> tuple[JudgedModel, Controlled]:
    return with_control(judged, points, AdjustConfig())


def test_a_model_is_brought_onto_the_points(judged: JudgedModel) -> None:
    points = ground()
    placed, found = controlled(judged, points)
    assert found.problem is None and np.array_equal(found.is_used, ~points.is_check)
    assert off(judged.result.model) > 1 and off(placed.result.model) < 0.02
    assert placed.uncertainty.metric and len(placed.result.model.points) == len(judged.result.model.points)
    for which in (points.is_check, ~points.is_check):
        across, up = found.rms_m(which)
        assert across < 0.03 and up < 0.05
    assert np.sqrt((found.residual_px**2).mean()) < 1.0


def test_the_points_hold_the_model(judged: JudgedModel) -> None:
    """A survey that is stretched stretches the model as far as the photographs allow."""
    points = ground()
    bent = replace(points, xyz_m=points.xyz_m + [0, 0, 0.03] * np.sign(points.xyz_m[:, :1] - points.xyz_m[:, 0].mean()))
    tight, found = controlled(judged, bent)
    loose, _ = controlled(judged, points)
    assert off(tight.result.model) > off(loose.result.model) and found.is_used.sum() == 6


def test_wrong_points_have_no_say(judged: JudgedModel) -> None:
    points = ground()
    xyz = points.xyz_m.copy()
    xyz[1] += [0.0, 2.0, 0.0]
    placed, found = controlled(judged, replace(points, xyz_m=xyz))
    assert not found.is_used[1] and found.is_used.sum() == 5 and off(placed.result.model) < 0.03
    assert found.residual_m[1, 1] == pytest.approx(-2, abs=0.1)


def test_points_that_determine_no_frame_are_named(judged: JudgedModel) -> None:
    points = ground()
    few = replace(points, is_check=np.arange(len(points.names)) >= 2)
    same, found = controlled(judged, few)
    assert same is judged and found.problem is not None and "only 2 control points" in found.problem
    line = replace(points, xyz_m=np.outer(np.arange(len(points.names)), [1.0, 2.0, 0.0]))
    assert "lie on a line" in str(controlled(judged, line)[1].problem)
    shuffled = replace(points, xyz_m=5 * np.random.default_rng(0).standard_normal(points.xyz_m.shape))
    _, found = controlled(judged, shuffled)
    assert found.problem is None or "agree on one place" in found.problem
    fixed = replace(judged.result.held, pose=np.ones(len(judged.result.model.image_index), bool))
    given = replace(judged, result=replace(judged.result, held=fixed))
    assert "poses are given" in str(controlled(given, points)[1].problem)
