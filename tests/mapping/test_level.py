"""Models with z up: everything but the frame stays, and a frame that was given stays too."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.level import levelled
from anchorsfm.scene.edit import moved
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.focal_prior import JudgedModel
from anchorsfm.tracks.residuals import residual_vectors
from anchorsfm.tracks.uncertainty import estimate_uncertainty
from report_scene import ring_model


@pytest.fixture
def judged() -> JudgedModel:
    """A ring of cameras around a ball on a floor, in any frame, with two points that were added afterwards."""
    turn = Rotation.from_euler("xyz", [100, 20, -50], degrees=True).as_matrix()
    model = moved(ring_model(8), 1.0, Similarity.of(turn, np.array([1.0, 2.0, 3.0])).pose)
    result = AdjustResult(
        model=model,
        dropped={},
        options=BundleOptions(loss_scale_px=1.0),
        held=Held.nothing(model),
        lenses=(),
        adjusted=False,
        added_points=2,
    )
    return JudgedModel(result=result, uncertainty=estimate_uncertainty(result))


@pytest.mark.parametrize("mode", ["auto", "plane", "manhattan"])
def test_up_is_z_and_nothing_else_changes(judged: JudgedModel, mode: str) -> None:
    before = judged.result.model
    after, up = levelled(judged, mode)  # type: ignore[arg-type]
    model = after.result.model
    assert up.source == {"auto": "cameras", "plane": "plane", "manhattan": "cameras"}[mode]  # a ball has no walls
    height = camera_centres(model.cam_from_world)[:, 2]
    assert np.ptp(height) < 1e-6 and height.mean() > np.median(model.points[:, 2])
    np.testing.assert_allclose(residual_vectors(model), residual_vectors(before), atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(model.points, axis=1), np.linalg.norm(before.points, axis=1))
    assert model.tracks is before.tracks and model.cameras == before.cameras
    assert after.uncertainty is judged.uncertainty
    assert len(after.result.at_optimum.points) == len(model.points) - 2


def test_ahead_is_y_where_the_cameras_look_one_way(judged: JudgedModel) -> None:
    few = judged.result.model
    looks = few.cam_from_world[:, 2, :3]
    kept = looks @ looks[0] > 0.5
    poses = np.where(kept[:, None, None], few.cam_from_world, few.cam_from_world[:1])
    wall = replace(judged, result=replace(judged.result, model=replace(few, cam_from_world=poses)))
    mean = levelled(wall, "auto")[0].result.model.cam_from_world[:, 2, :3].mean(axis=0)
    assert abs(mean[0]) < 1e-9 and mean[1] > 0.7
