"""What a reader should know before relying on a model is said, and nothing is said about ordinary ones."""

from dataclasses import replace

import numpy as np
import pytest

from anchorsfm.colmap.bundle import BundleOptions, Held
from anchorsfm.report.numbers import unconfirmed_share
from anchorsfm.report.remarks import alignment_remarks, model_remarks
from anchorsfm.results.record import AlignmentReport
from anchorsfm.scene.edit import select_observations, select_views, with_points
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.synthetic import SceneConfig, image_set, make_scene
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.degeneracy import pairs_without_motion
from anchorsfm.tracks.uncertainty import Deviations, ModelUncertainty
from point_scene import make_lens_scene

NUM = 6


@pytest.fixture(scope="module")
def model() -> Reconstruction:
    """Points in a cube; every view sees most of them."""
    camera = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))
    return make_lens_scene((camera,), num_views=NUM, num_points=600, extent=2.0)


def images(focal_px: float = np.nan) -> ImageSet:
    return replace(image_set(make_scene(SceneConfig(num_images=NUM))), focal_prior_px=np.full(NUM, focal_px))


def remarks(
    model: Reconstruction,
    *,
    focal_sigma_px: float = 2.0,
    position: float = 0.001,
    recorded_px: float = np.nan,
    of: ImageSet | None = None,
    failed: int = 0,
) -> str:
    num = len(model.image_index)
    result = AdjustResult(
        model=model,
        dropped={},
        options=BundleOptions(loss_scale_px=1.0),
        held=Held.nothing(model),
        lenses=(),
        failed_steps=failed,
    )
    deviations = Deviations(
        position=np.full(num, position),
        rotation_deg=np.full(num, 0.01),
        camera_params=((focal_sigma_px, 0.0, 0.0, 1e-4),),
    )
    weak = np.zeros(num, bool)
    whole = ModelUncertainty(**vars(deviations), noise=deviations, scene_size=5.0, weak=weak, metric=False)
    return "\n".join(model_remarks(result, whole, of or images(recorded_px)))


def of_views(model: Reconstruction, count: int) -> Reconstruction:
    tracks, points = select_observations(model.tracks, model.tracks.obs_image < count)
    part = with_points(model, tracks, model.points[points])
    return replace(
        part, **{name: getattr(part, name)[:count] for name in ("image_index", "cam_from_world", "camera_index")}
    )


def test_an_ordinary_model_has_no_remarks(model):
    assert not remarks(model)
    assert not remarks(model, recorded_px=1480.0)


def test_two_views_few_points_and_failed_steps_are_named(model):
    pair = of_views(model, 2)
    assert f"two views and {len(pair.points)} points" in remarks(pair)
    tracks, points = select_observations(model.tracks, model.tracks.obs_point < 40)
    assert "only 40 points hold 6 views together" in remarks(with_points(model, tracks, model.points[points]))
    assert "12 steps of the adjustment" in remarks(model, failed=12)


def test_a_plane_is_named(model):
    flat = replace(model, points=model.points * [1, 1, 0.02])
    assert "in a plane" in remarks(flat)
    assert "in a plane" not in remarks(replace(model, points=model.points * [1, 1, 0.3]))


def test_cameras_that_hardly_moved_are_named(model):
    rotation = model.cam_from_world[:, :, :3]
    centres = -np.einsum("nji,nj->ni", rotation, model.cam_from_world[:, :, 3])
    near = centres.mean(0) + 0.01 * (centres - centres.mean(0))
    still = replace(model, cam_from_world=np.concatenate([rotation, -(rotation @ near[:, :, None])], axis=2))
    assert "hardly moved" in remarks(still)


def test_uncertain_positions_are_said_of_the_model(model):
    assert "positions are uncertain by 4 %" in remarks(model, position=0.2)


def test_a_focal_length_that_is_undetermined_or_contradicts_its_record_is_named(model):
    assert "focal length 1500 px +- 150 estimated: undetermined" in remarks(model, focal_sigma_px=150.0)
    said = remarks(model, focal_sigma_px=150.0, recorded_px=1200.0)
    assert "1500 px +- 150 estimated, 1200 px recorded" in said
    assert "--focal-px 1200" in said and "undetermined" not in said


def test_a_focal_length_of_a_known_model_is_not_called_a_record_of_the_photograph(model):
    known = replace(images(1200.0), prior_is_known=np.ones(NUM, bool))
    said = remarks(model, focal_sigma_px=150.0, of=known)
    assert "1200 px in the known model" in said and "--known.no-freeze-intrinsics" in said
    assert "EXIF" not in said and "--focal-px" not in said


def test_pairs_whose_matches_stay_in_place_are_found():
    """By the median, with the noise of keypoints, and only between pictures of one size."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1000, (3, 50, 2))
    moved = xy + np.array([0.0, 3.0, 0.0])[:, None, None] + rng.normal(0, 0.1, xy.shape)
    moved[0, :10] += 40  # wrong matches
    matches = KeypointMatches(
        image_i=np.repeat([0, 0, 1], 50),
        image_j=np.repeat([1, 2, 3], 50),
        xy_i=xy.reshape(-1, 2),
        xy_j=moved.reshape(-1, 2),
        confidence=np.full(150, 10.0),
    )
    size_wh = np.array([[1000, 800], [1000, 800], [1000, 800], [800, 1000]])
    assert pairs_without_motion(matches, np.ones(4), size_wh) == [(0, 1)]
    assert pairs_without_motion(matches, np.full(4, 10.0), size_wh) == [(0, 1), (0, 2)]
    nothing = matches.select(np.zeros(150, bool))
    assert pairs_without_motion(nothing, np.ones(4), size_wh) == []


def test_an_alignment_that_the_models_do_not_confirm_is_doubted(model: Reconstruction) -> None:
    index, poses = model.image_index, model.cam_from_world
    scaled = poses * [1, 1, 1, 2.5]
    assert unconfirmed_share(index, scaled, [model]) == 0  # in a frame of its own
    wrong = scaled.copy()
    wrong[3:] = wrong[3:] @ np.diag([-1, -1, 1, 1])  # the other half stands on the other side
    assert unconfirmed_share(index, wrong, [model]) == pytest.approx(9 / 15)
    first, second = (select_views(model, np.isin(np.arange(NUM), rows)) for rows in ([0, 1, 2, 3], [4, 5]))
    assert unconfirmed_share(index, scaled, [first, second]) == pytest.approx(8 / 15)
    assert unconfirmed_share(index, scaled, []) == 1
    reports = [alignment_report(share) for share in (0.02, 0.6)]
    (line,) = alignment_remarks(reports)
    assert line.startswith("alignment/1: ") and " 60 % " in line and line.endswith("take sparse")


def alignment_report(share: float) -> AlignmentReport:
    ended = {"coarse_iterations": 1, "coarse_loss": 0.1, "coarse_status": "converged"}
    ended |= {"fine_iterations": 1, "fine_loss": 0.1, "fine_status": "converged"}
    return AlignmentReport(images=6, unconfirmed_share=share, solver={}, **ended)
