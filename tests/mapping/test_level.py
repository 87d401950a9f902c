"""Models with z up: everything but the frame stays, and a frame that was given stays too."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held
from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.mapping.level import find_up, levelled
from anchorsfm.scene.edit import moved
from anchorsfm.scene.reconstruction import Reconstruction
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
    np.testing.assert_array_equal(after.uncertainty.position, judged.uncertainty.position)
    assert len(after.result.at_optimum.points) == len(model.points) - 2


def test_ahead_is_y_where_the_cameras_look_one_way(judged: JudgedModel) -> None:
    few = judged.result.model
    looks = few.cam_from_world[:, 2, :3]
    kept = looks @ looks[0] > 0.5
    poses = np.where(kept[:, None, None], few.cam_from_world, few.cam_from_world[:1])
    wall = replace(judged, result=replace(judged.result, model=replace(few, cam_from_world=poses)))
    mean = levelled(wall, "auto")[0].result.model.cam_from_world[:, 2, :3].mean(axis=0)
    assert abs(mean[0]) < 1e-9 and mean[1] > 0.7


def down_of(model: Reconstruction, up: np.ndarray, noise_deg: float = 1.0) -> np.ndarray:
    """What phones that took the photographs would have recorded."""
    rng = np.random.default_rng(0)
    down = -np.einsum("nij,j->ni", model.cam_from_world[:, :, :3], up)
    down += np.tan(np.radians(noise_deg)) * rng.normal(0, 1, down.shape)
    return down / np.linalg.norm(down, axis=1, keepdims=True)


def test_gravity_decides_where_phones_recorded_it(judged: JudgedModel) -> None:
    """Also where the ground under them slopes, as the cameras' ring does here by 12 degrees."""
    model = judged.result.model
    tilted = Rotation.from_rotvec(np.radians(12) * model.cam_from_world[0, 2, :3]).as_matrix()
    level = find_up(model, "auto").direction
    up = tilted @ level
    down = down_of(model, up)
    down[1], down[5], down[6] = np.nan, [1, 0, 0], -down[6]
    found = find_up(model, "auto", down)
    assert found.source == "gravity" and found.deviation_deg < 1.2
    assert rotation_between_deg(found.direction, up) < 1.2
    after, said = levelled(judged, "auto", down)
    assert said.source == "gravity"
    centres = camera_centres(after.result.model.cam_from_world)
    across = np.linalg.svd(centres - centres.mean(axis=0))[2][2]
    assert rotation_between_deg(np.abs(across), np.array([0, 0, 1.0])) == pytest.approx(
        rotation_between_deg(up, level), abs=1.2
    )
    assert find_up(model, "plane", down).source == "plane"


@pytest.mark.parametrize("what", ["too few", "absurd", "axes taken for others", "halves"])
def test_records_that_cannot_be_right_are_left_out(judged: JudgedModel, what: str) -> None:
    model, rng = judged.result.model, np.random.default_rng(1)
    up = find_up(model, "auto").direction
    down = down_of(model, up)
    if what == "too few":
        down[2:] = np.nan
    elif what == "absurd":
        down = rng.normal(size=down.shape)
        down /= np.linalg.norm(down, axis=1, keepdims=True)
    elif what == "axes taken for others":
        down = down_of(model, np.cross(up, model.cam_from_world[0, 2, :3]))
    else:
        down[len(down) // 2 :] *= -1
    assert find_up(model, "auto", down).source == "cameras"


def rotation_between_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))
