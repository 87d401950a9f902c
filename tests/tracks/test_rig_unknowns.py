"""Unknowns of models whose views are tied by rigs."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import BundleOptions, Held, adjust
from anchorsfm.geometry.transforms import camera_centres, compose
from anchorsfm.scene.edit import with_poses, with_rigs
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.linearised import linearise
from anchorsfm.tracks.rig_unknowns import units_of, with_units
from anchorsfm.tracks.uncertainty import estimate_uncertainty
from rig_scene import rig_model, rig_truth

OPTIONS = BundleOptions(loss_scale_px=1.0, refine_focal=False, refine_distortion=False)


def changed(pose: np.ndarray, step: np.ndarray) -> np.ndarray:
    """A pose after a rotation vector and a shift of its origin, as `linearised` counts them."""
    rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ pose[:, :3]
    return np.concatenate([rotation, -(rotation @ (camera_centres(pose) + step[3:]))[:, None]], axis=1)


@pytest.mark.parametrize("what", ["frame", "sensor"])
def test_derivatives_by_frames_and_sensors(what: str) -> None:
    model = rig_model(rig_truth(frames=3), noise_px=0.5, pose_noise=0.0)
    assert model.rigs is not None
    units = units_of(model)
    assert len(units.poses) == 3 and units.sensors == (1, 2) and not units.has_scale
    before = linearise(model, 1.0)
    lin = with_units(before, model, units)
    assert lin.by_unknown.shape[1] == before.by_unknown.shape[1] - 36 + 12
    step = 1e-5 * np.random.default_rng(0).standard_normal(6)
    poses, sensors, unknown = units.poses.copy(), model.rigs.sensor_from_rig.copy(), np.zeros(lin.by_unknown.shape[1])
    if what == "frame":
        poses[1] = changed(poses[1], step)
        unknown[6:12] = step
    else:
        sensors[2] = changed(sensors[2], step)
        unknown[-6:] = step
    moved = with_poses(model, compose(sensors[model.rigs.sensor], poses[units.of_view]))
    difference = (linearise(moved, 1.0).residual - lin.residual).ravel()
    assert np.allclose(lin.by_unknown @ unknown, difference, atol=1e-4 * np.abs(difference).max())


def test_a_rig_holds_its_cameras_better_than_they_hold_themselves() -> None:
    model, _ = adjust(rig_model(rig_truth(frames=6), noise_px=0.3, pose_noise=0.0), OPTIONS)
    tied, single = (_uncertainty(m) for m in (model, with_rigs(model, None)))
    assert np.isfinite(tied.rotation_deg).all() and not tied.weak.any()
    assert tied.rotation_deg.mean() < 0.8 * single.rotation_deg.mean()
    assert tied.position.mean() < 0.9 * single.position.mean()


def _uncertainty(model: Reconstruction):
    nothing = Held(pose=np.zeros(len(model.image_index), bool), camera=np.ones(len(model.cameras), bool))
    return estimate_uncertainty(AdjustResult(model=model, dropped={}, options=OPTIONS, held=nothing, lenses=()))
