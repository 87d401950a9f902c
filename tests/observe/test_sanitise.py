"""Numbers that are not finite in a front end's predictions: left out at the door, counted, never further."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.align.config import AlignConfig
from anchorsfm.align.scene import align_scene
from anchorsfm.geometry.transforms import rotation_angle_deg
from anchorsfm.io.store import Store
from anchorsfm.observe.checkpoint import observe
from anchorsfm.observe.config import GraphConfig
from anchorsfm.observe.graph import build_scene_graph
from anchorsfm.observe.sanitise import LeftOut, sanitise
from anchorsfm.scene.errors import NonFiniteError
from anchorsfm.scene.finite import require_finite
from anchorsfm.scene.pairs import PairList, Pointmaps
from anchorsfm.scene.progress import Progress, RecordingProgress
from oval_scene import all_pairs, oval_scene

PAIRS = all_pairs(3)


def spoilt(prediction, share=0.02, seed=0):
    """The prediction with some numbers that are not finite in everything it says."""
    rng = np.random.default_rng([seed, prediction.i, prediction.j])

    def some(values, number):
        values = values.copy()
        chosen = rng.uniform(size=len(values)) < share
        values[chosen] = number
        return values

    def maps(frame):
        height, width = frame.own_confidence.shape
        flat = frame.own.reshape(-1, 3)
        return Pointmaps(
            own=some(some(flat, np.nan), np.inf).reshape(height, width, 3),
            own_confidence=some(frame.own_confidence.ravel(), np.nan).reshape(height, width),
            other=some(frame.other.reshape(-1, 3), -np.inf).reshape(height, width, 3),
            other_confidence=some(frame.other_confidence.ravel(), np.inf).reshape(height, width),
        )

    matches = prediction.matches
    spoilt_matches = replace(
        matches, xy_i=some(matches.xy_i, np.nan), confidence=some(some(matches.confidence, np.inf), -1.0)
    )
    return replace(
        prediction, matches=spoilt_matches, frame_i=maps(prediction.frame_i), frame_j=maps(prediction.frame_j)
    )


class Stream:
    digest = "spoilt"
    detects_keypoints, focal_px, licence = False, None, None

    def __init__(self, scene, keeps_predictions):
        self.scene, self.grid, self.keeps_predictions = scene, scene.grid, keeps_predictions

    def __len__(self):
        return len(PAIRS)

    def __iter__(self):
        return self.predictions(range(len(PAIRS)))

    def predictions(self, rows):
        return (spoilt(self.scene.prediction(*PAIRS[row])) for row in rows)


def test_a_sound_prediction_is_passed_on_bit_by_bit():
    prediction, left_out = oval_scene(2).prediction(0, 1), LeftOut()
    clean = sanitise(prediction, left_out)
    assert left_out == LeftOut()
    assert clean.matches is prediction.matches and clean.frame_i.own is prediction.frame_i.own


@pytest.mark.parametrize("keeps_predictions", [True, False])
def test_predictions_with_numbers_that_are_not_finite_align_as_well(keeps_predictions, tmp_path):
    scene, recorded = oval_scene(3), RecordingProgress(Progress())
    pairs = PairList(index=np.array(PAIRS))
    observed = observe(
        3, Stream(scene, keeps_predictions), pairs, GraphConfig(), Store(tmp_path), lambda stream: stream, recorded
    )
    assert observed.left_out.pairs == 3 and observed.left_out.points > 100 and observed.left_out.matches > 20
    assert recorded.warnings == [str(observed.left_out)] and "of 3 pairs" in recorded.warnings[0]
    (result,) = align_scene(observed)
    turn = np.swapaxes(result.cam_from_world[:, :, :3], 1, 2) @ scene.cam_from_world[:, :, :3]
    assert rotation_angle_deg(turn @ turn[0].T).max() < 0.05


def test_pairs_without_a_finite_point_or_match_are_dropped():
    scene = oval_scene(3)
    nothing = spoilt(scene.prediction(0, 1), share=1.0)
    observed = build_scene_graph(3, [nothing, scene.prediction(0, 2), scene.prediction(1, 2)], scene.grid)
    assert observed.graph.pair.tolist() == [[0, 2], [1, 2]] and observed.left_out.pairs == 1


def test_confidences_below_one_know_nothing():
    prediction = oval_scene(2).prediction(0, 1)
    confidence = prediction.frame_i.own_confidence.copy()
    confidence[:4] = -3.0
    clean = sanitise(replace(prediction, frame_i=replace(prediction.frame_i, own_confidence=confidence)), LeftOut())
    assert (clean.frame_i.own_confidence[:4] == 1).all()


def test_what_is_not_finite_later_names_its_stage():
    require_finite("adjustment", "its result", 1.0, np.ones(3))
    with pytest.raises(NonFiniteError, match="adjustment: its result has 2 numbers"):
        require_finite("adjustment", "its result", np.array([1, np.nan, np.inf]))
    scene = oval_scene(3)
    observed = scene.observe(PAIRS)
    observed.graph.confidence[5] = np.nan
    with pytest.raises(NonFiniteError, match="alignment: what it starts from has 1 numbers"):
        align_scene(observed, AlignConfig())
