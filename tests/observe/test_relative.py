"""How the cameras of a pair are turned, and what speaks for it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.observe.relative import RelativeRotation, certain, judge_rotations, relative_rotation, with_rotation
from anchorsfm.pairing.config import ConsistencyConfig
from anchorsfm.scene.pairs import Matches
from oval_scene import oval_scene

RNG = np.random.default_rng(0)


def doubtful_left_half(maps, junk_m):
    """Pointmaps whose left half is wrong, and says so."""
    wrong = {}
    for name in ("own", "other"):
        points, confidence = getattr(maps, name).copy(), getattr(maps, f"{name}_confidence").copy()
        half = points.shape[1] // 2
        points[:, :half] += RNG.normal(0, junk_m, points[:, :half].shape)
        confidence[:, :half] = 1.0
        wrong |= {name: points, f"{name}_confidence": confidence}
    return replace(maps, **wrong)


@pytest.mark.parametrize("junk_m", [0.0, 2.0])
def test_points_of_which_nothing_is_known_turn_no_camera(junk_m):
    scene = oval_scene(2)
    made = scene.prediction(0, 1)
    frame_i, frame_j = (doubtful_left_half(maps, junk_m) for maps in (made.frame_i, made.frame_j))
    found = with_rotation(replace(made, frame_i=frame_i, frame_j=frame_j)).j_from_i
    true = scene.cam_from_world[1, :, :3] @ scene.cam_from_world[0, :, :3].T
    assert rotation_angle_deg((found @ true.T)[None])[0] < 0.05


def test_what_a_front_end_says_outright_counts_more_than_its_pointmaps():
    prediction = replace(oval_scene(2).prediction(0, 1), j_from_i=Rotation.from_rotvec([0.3, 0, 0]).as_matrix())
    assert with_rotation(prediction) is prediction
    assert np.array_equal(relative_rotation(prediction).j_from_i, prediction.j_from_i)


def test_evidence_is_verified_matches_or_others_as_far_as_they_are_certain():
    xy = np.zeros((5, 2))
    matches = Matches(xy_i=xy, xy_j=xy, confidence=np.array([0.5, 1.0, 5.5, 10.0, 40.0]))
    assert certain(matches) == 2.5
    prediction = replace(oval_scene(2).prediction(0, 1), matches=matches)
    assert relative_rotation(prediction).evidence == 2.5
    assert relative_rotation(replace(prediction, keypoint_matches=matches)).evidence == 5


def test_verdicts_are_about_the_pairs_they_were_made_of():
    """Nothing is known of every third pair; one of the others is wrong."""
    world = Rotation.from_euler("yx", RNG.uniform(-30, 30, (10, 2)), degrees=True)
    pair = np.stack(np.triu_indices(10, 1), axis=1)
    true = (world[pair[:, 1]] * world[pair[:, 0]].inv()).as_matrix()
    unknown, wrong = np.arange(len(pair)) % 3 == 0, 16
    true[wrong] = Rotation.from_rotvec([0, 1.0, 0]).as_matrix() @ true[wrong]
    rotations = [
        RelativeRotation(j_from_i=np.eye(3) if none else rotation, evidence=0.0 if none else 100.0)
        for none, rotation in zip(unknown, true, strict=True)
    ]
    belief = judge_rotations(10, pair, rotations, ConsistencyConfig())
    assert np.flatnonzero(belief.rejected).tolist() == [wrong]
    assert (belief.confirmed == ~(unknown | belief.rejected)).all()
    assert (np.isnan(belief.disagreement_deg) == unknown).all()
    assert np.flatnonzero(belief.disagreement_deg > 30).tolist() == [wrong]
