"""Models brought into the frame of recorded positions, and focal lengths that photographs and records say together."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import focal_length_px
from anchorsfm.geometry.transforms import camera_centres, fit_similarity
from anchorsfm.mapping.georeference import Georeferenced, georeference
from anchorsfm.mapping.placement import place
from anchorsfm.report.places import placement_lines
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.modelling import _with_records
from anchorsfm.scene.edit import moved
from anchorsfm.scene.positions import GeoPositions
from anchorsfm.scene.progress import SILENT
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.synthetic import SceneConfig, image_set, make_scene
from anchorsfm.tracks import focal_prior
from anchorsfm.tracks.adjust import AdjustResult, adjust_model
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_prior import FocalPriors, JudgedModel, settle_focal_lengths
from anchorsfm.tracks.residuals import with_errors
from anchorsfm.tracks.uncertainty import Deviations, ModelUncertainty
from point_scene import perturb, project_pinhole

FOCAL_PX, HEIGHT_M, NOISE_M = 900.0, 60.0, 2.0
CONFIG = AdjustConfig(refine_principal_point=False)
LINES, ALONG = 3, 5
NUM = LINES * ALONG


def flight(
    relief: float, seed: int = 0, *, lines: int = LINES, along: int = ALONG
) -> tuple[Reconstruction, KeypointMatches]:
    """Photographs from above, in metres with z up: true cameras, and matches with noise."""
    rng, count = np.random.default_rng(seed), lines * along
    grid = np.stack(np.meshgrid(np.arange(along) * 12.0, np.arange(lines) * 16.0), axis=-1).reshape(-1, 2)
    centres = np.concatenate([grid - grid.mean(axis=0), np.full((count, 1), HEIGHT_M)], axis=1)
    centres += rng.normal(0, 0.7, centres.shape)
    down = np.diag([1.0, -1.0, -1.0])
    tilt = Rotation.from_rotvec(rng.normal(0, 0.02, (count, 3))).as_matrix()
    rotation = tilt @ down
    poses = np.concatenate([rotation, -(rotation @ centres[:, :, None])], axis=2)
    edge = np.array([35.0 + 6 * along, 31.0 + 8 * lines])
    points = rng.uniform([*-edge, 0], [*edge, relief * HEIGHT_M + 1e-9], (round(800 * edge.prod() / 3575), 3))
    camera = Camera(model="SIMPLE_RADIAL", width=1000, height=750, params=(FOCAL_PX, 500.0, 375.0, 0.0))
    xy = np.stack([project_pinhole(camera, pose, points) for pose in poses])
    noisy = xy + 0.3 * rng.standard_normal(xy.shape)
    inside = ((xy >= 0) & (xy < [1000, 750])).all(axis=-1)
    rows = []
    for i in range(count):
        for j in range(i + 1, count):
            common = np.flatnonzero(inside[i] & inside[j])
            if len(common) > 20:
                rows.append((np.full(len(common), i), np.full(len(common), j), noisy[i, common], noisy[j, common]))
    image_i, image_j, xy_i, xy_j = (np.concatenate(part) for part in zip(*rows, strict=True))
    matches = KeypointMatches(
        image_i=image_i, image_j=image_j, xy_i=xy_i, xy_j=xy_j, confidence=np.full(len(image_i), 10.0)
    )
    truth = Reconstruction(
        image_index=np.arange(count),
        cam_from_world=poses,
        cameras=(camera,),
        camera_index=np.zeros(count, np.int64),
        points=np.zeros((0, 3)),
        rgb=np.zeros((0, 3), np.uint8),
        error_px=np.zeros(0),
        tracks=build_tracks(matches.select(np.zeros(len(image_i), bool)), count),
    )
    return truth, matches


def reconstructed(relief: float) -> tuple[Reconstruction, AdjustResult]:
    """The truth, and a model of it in another frame and unit."""
    truth, matches = flight(relief)
    turn = Rotation.from_rotvec([0.4, 1.2, -0.3]).as_matrix()
    start = moved(perturb(truth, degrees=0.1, distance=0.3, focal=1.03), 0.02, np.c_[turn, [1.0, 2.0, 3.0]])
    tracks = build_tracks(matches, NUM)
    return truth, adjust_model(start, tracks, CONFIG, working_scale=np.ones(NUM), held=Held.nothing(start))


@pytest.fixture(scope="module", params=[0.0, 0.02], ids=["flat", "relief"])
def scene(request) -> tuple[Reconstruction, AdjustResult]:
    return reconstructed(request.param)


def recorded(truth: Reconstruction, seed: int = 0, sigma: float = NOISE_M, noise: float = NOISE_M) -> GeoPositions:
    centres = camera_centres(truth.cam_from_world)
    enu_m = centres + noise * np.random.default_rng(seed).standard_normal(centres.shape)
    return GeoPositions(
        lat_lon_alt=np.zeros(centres.shape),
        enu_m=enu_m,
        sigma_m=np.full(centres.shape, sigma),
        origin=(0.0, 0.0, 0.0),
        is_ellipsoidal=False,
    )


def focal_record(error: float, deviation: float = 0.015) -> FocalPriors:
    px = FOCAL_PX * (1 + error)
    return FocalPriors(focal_px=np.array([px]), sigma_px=np.array([deviation * px]), is_assumed=np.zeros(1, bool))


NO_RECORD = FocalPriors(focal_px=np.array([np.nan]), sigma_px=np.array([np.nan]), is_assumed=np.zeros(1, bool))


def run(
    result: AdjustResult,
    geo: GeoPositions,
    mode: str = "auto",
    focal: FocalPriors = NO_RECORD,
    config: AdjustConfig = CONFIG,
) -> tuple[JudgedModel, Georeferenced]:
    judged = settle_focal_lengths(result, focal, config)
    return georeference(judged, result, geo, mode, config, focal)


def position_rms_m(model: Reconstruction, truth: Reconstruction) -> float:
    error = camera_centres(model.cam_from_world) - camera_centres(truth.cam_from_world)
    return float(np.sqrt((error**2).mean()))


def test_a_flight_with_records_is_metric_and_honest(scene) -> None:
    """An EXIF focal length that is 1 % wrong and positions that are 2 m wrong."""
    truth, result = scene
    judged, found = run(result, recorded(truth), focal=focal_record(0.01))
    assert found.mode == "prior" and found.agrees.all() and found.problem is None
    assert position_rms_m(judged.result.model, truth) < NOISE_M / 2  # sqrt(7 / 45) NOISE_M is expected
    (camera,) = judged.result.model.cameras
    error_px, sigma_px = abs(focal_length_px(camera) - FOCAL_PX), judged.uncertainty.camera_params[0][0]
    assert 0.3 * sigma_px < error_px < 2 * sigma_px or error_px < 0.005 * FOCAL_PX
    assert sigma_px < 0.02 * FOCAL_PX
    assert judged.uncertainty.metric
    centres = camera_centres(judged.result.model.cam_from_world)
    actual = np.linalg.norm(centres - camera_centres(truth.cam_from_world), axis=1)
    assert np.sqrt((actual**2).mean()) < 2 * np.sqrt((judged.uncertainty.position**2).mean())


def test_wrong_positions_are_found_and_have_no_say(scene) -> None:
    truth, result = scene
    geo = recorded(truth)
    enu_m = geo.enu_m.copy()
    enu_m[[2, 9, 13]] += [[100, 0, 0], [-60, 80, 0], [0, 0, 100]]
    right, _ = run(result, geo)
    judged, found = run(result, replace(geo, enu_m=enu_m))
    assert np.flatnonzero(found.outliers).tolist() == [2, 9, 13]
    assert position_rms_m(judged.result.model, right.result.model) < 0.6
    lines = placement_lines(found, [f"{k}.jpg" for k in range(NUM)], "auto")
    (warning,) = [line.text for line in lines if line.is_warning]
    assert all(f"{k}.jpg (" in warning for k in (2, 9, 13))


def test_missing_positions_and_modes(scene) -> None:
    truth, result = scene
    geo = recorded(truth)
    some = replace(geo, enu_m=np.where((np.arange(NUM) % 3 == 0)[:, None], geo.enu_m, np.nan))
    _, found = run(result, some)
    assert found.mode == "prior" and found.agrees.sum() == 5
    assert np.isfinite(found.residual_m).all(axis=1).sum() == 5
    checked, found = run(result, geo, "check")
    assert found.mode == "check" and checked.result is result and found.agrees.all()
    aligned, found = run(result, geo, "align")
    assert found.mode == "align" and aligned.uncertainty.metric
    assert aligned.result.held.positions is None
    assert np.abs(aligned.result.model.error_px - result.model.error_px).max() == 0
    assert position_rms_m(aligned.result.model, truth) < 2 * NOISE_M
    for mode in ("auto", "prior"):
        assert run(replace(result, adjusted=False), geo, mode)[1].mode == "align"


def test_positions_that_cannot_place_a_model_leave_it_alone(scene) -> None:
    truth, result = scene
    geo = recorded(truth)
    few = np.full((NUM, 3), np.nan)
    few[:3] = geo.enu_m[:3]
    line = np.stack([np.linspace(0, 100, NUM), np.zeros(NUM), np.zeros(NUM)], axis=1)
    somewhere = np.random.default_rng(0).uniform(-500, 500, (NUM, 3))
    crowded = 0.05 * geo.enu_m
    for enu_m, words in ((few, "only 3"), (somewhere, ""), (crowded, ""), (0.0 * line, "")):
        judged, found = run(result, replace(geo, enu_m=enu_m))
        assert found.mode == "check" and judged.result is result and words in (found.problem or "")
        assert found.problem
        assert not [line for line in placement_lines(found, ["x"] * NUM, "auto")[:1] if line.is_warning]
        assert placement_lines(found, ["x"] * NUM, "prior")[0].is_warning


def test_positions_that_leave_the_scale_open_are_not_used_even_if_asked_for(scene) -> None:
    truth, result = scene
    geo = recorded(truth)
    for enu_m in (0.0 * geo.enu_m, 0.02 * geo.enu_m):
        for mode in ("check", "align", "prior"):
            judged, found = run(result, replace(geo, enu_m=enu_m), mode)
            assert found.mode == "check" and judged.result is result and found.problem
            assert not found.agrees.any() and not np.isfinite(found.residual_m).any()


def test_positions_that_leave_the_rotation_open_are_used_if_asked_for_and_named(scene) -> None:
    truth, result = scene
    geo = recorded(truth)
    row = geo.enu_m[:ALONG]  # one line of the flight
    line = replace(geo, enu_m=np.concatenate([row, np.full((NUM - ALONG, 3), np.nan)]))
    aligned, found = run(result, line, "align")
    assert found.mode == "align" and "too close to a line" in found.problem and aligned.result is not result
    first = placement_lines(found, ["x"] * NUM, "align")[0]
    assert first.is_warning and "only because that was asked for" in first.text
    assert run(result, line)[1].mode == "check"


def test_positions_on_a_line_do_not_tell_which_way_is_up() -> None:
    centres = np.stack([np.linspace(0, 100, 12), np.zeros(12), np.zeros(12)], axis=1)
    rng = np.random.default_rng(0)
    placed = place(centres, centres + rng.normal(0, 1, centres.shape), np.ones((12, 3)))
    assert "too close to a line" in placed.problem


def test_heights_that_few_positions_lack_leave_no_more_open() -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(-1, 1, (18, 3)) * [40, 25, 3]
    sigma = np.broadcast_to([2.0, 2.0, 3.0], (18, 3)).copy()
    position = centres + sigma * rng.standard_normal(centres.shape)
    every = place(centres, position, sigma)
    sigma[::3, 2] = 30.0
    some = place(centres, position, sigma)
    assert every.problem is None and some.problem is None
    assert some.rotation_sigma_deg < 1.2 * every.rotation_sigma_deg


def test_positions_that_are_wrong_are_not_said_to_be_close_together() -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(-1, 1, (18, 3)) * 40
    said = place(centres, rng.permutation(centres), np.ones((18, 3)))
    assert isinstance(said, str) and "times as far from the model" in said


def test_deviations_follow_the_residuals() -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(-100, 100, (60, 3))
    noise = rng.normal(0, 1, centres.shape) * [0.5, 0.5, 8.0]
    placed = place(centres, centres + noise, np.broadcast_to([2.0, 2.0, 3.0], (60, 3)))
    assert placed.agrees.all() and placed.problem is None
    assert placed.sigma_m[0] == pytest.approx([0.6, 0.6, 8.0], rel=0.25)


def test_a_record_has_no_say_where_the_photographs_know_better() -> None:
    """A record that contradicts, and a relief that shows the focal length."""
    _, result = reconstructed(0.3)
    free = settle_focal_lengths(result, NO_RECORD, CONFIG)
    assert free.result is result
    assert settle_focal_lengths(result, focal_record(0.01, 0.03), CONFIG).result is result
    assert settle_focal_lengths(result, focal_record(0.5), CONFIG).result is result


def test_a_deviation_that_promises_too_much_does_not_refuse_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linearised where the adjustment ended, the error may seem to rise much faster than it does."""
    estimate = focal_prior.estimate_uncertainty

    def promising(result: AdjustResult) -> ModelUncertainty:
        found = estimate(result)
        return replace(
            found, camera_params=tenths(found), noise=replace(found.noise, camera_params=tenths(found.noise))
        )

    def tenths(found: Deviations) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(0.1 * value for value in params) for params in found.camera_params)

    (flat, relief) = (reconstructed(value)[1] for value in (0.0, 0.3))
    record = focal_record(0.067, 0.005)
    honest = settle_focal_lengths(flat, record, CONFIG).result.focal[0]
    monkeypatch.setattr(focal_prior, "estimate_uncertainty", promising)
    (focal,) = settle_focal_lengths(flat, record, CONFIG).result.focal
    assert abs(focal.free_px - focal.prior_px) > 3 * np.hypot(0.1 * honest.free_sigma_px, focal.prior_sigma_px)
    assert focal.is_kept and focal.free_sigma_px == pytest.approx(honest.free_sigma_px, rel=0.5)
    assert settle_focal_lengths(relief, focal_record(0.1), CONFIG).result is relief  # here it does rise


def test_a_flat_ground_leaves_the_record_its_say() -> None:
    _, result = reconstructed(0.0)
    settled = settle_focal_lengths(result, focal_record(0.01), CONFIG)
    (focal,) = settled.result.focal
    assert focal.is_kept and not settled.result.options.refine_focal
    (camera,) = settled.result.model.cameras
    assert focal_length_px(camera) == pytest.approx(FOCAL_PX * 1.01, rel=0.01)
    assert settled.uncertainty.camera_params[0][0] == pytest.approx(focal.sigma_px, rel=1e-6)
    assert settled.result.model.error_px.mean() < 1.05 * result.model.error_px.mean()


def test_a_level_model_is_turned_about_z_only() -> None:
    """On a line, with one position that is wrong; without noise exactly."""
    rng = np.random.default_rng(0)
    centres = np.stack([np.linspace(0, 3, 12), np.linspace(0, 1, 12), 0.1 * rng.normal(size=12)], axis=1)
    turn = Rotation.from_euler("z", 70, degrees=True).as_matrix()
    position = 30 * centres @ turn.T + [4.0, 5.0, 6.0]
    position[3] += [0, 100, 0]
    placed = place(centres, position, np.ones((12, 3)), z_is_up=True)
    assert placed.problem is None and np.flatnonzero(~placed.agrees).tolist() == [3]
    assert placed.scale == pytest.approx(30)
    np.testing.assert_allclose(placed.pose, np.c_[turn, [4, 5, 6]], atol=1e-6)
    upright = np.stack([np.zeros(12), np.zeros(12), np.linspace(0, 100, 12)], axis=1)
    placed = place(upright, upright + rng.normal(0, 1, (12, 3)), np.ones((12, 3)), z_is_up=True)
    assert "where north is" in placed.problem


STRIP, RTK_M = 40, 0.05
"""Photographs of a strip, and what real-time kinematic positions are off."""


def bent(result: AdjustResult, degrees: float) -> AdjustResult:
    """Each photograph turned to the side and upwards a little more than the one before; points go along."""
    model = result.model
    before = camera_centres(model.cam_from_world)
    turn = Rotation.from_rotvec(np.radians(degrees) * np.arange(STRIP)[:, None] * [0.0, 1.0, 1.0]).as_matrix()
    steps = np.einsum("kij,kj->ki", turn[:-1], np.diff(before, axis=0))
    after = np.concatenate([before[:1], before[0] + np.cumsum(steps, axis=0)])
    rotation = model.cam_from_world[:, :, :3] @ np.swapaxes(turn, 1, 2)
    poses = np.concatenate([rotation, -(rotation @ after[:, :, None])], axis=2)
    _, first = np.unique(model.tracks.obs_point, return_index=True)
    view = model.tracks.obs_image[first]
    points = np.einsum("kij,kj->ki", turn[view], model.points - before[view]) + after[view]
    return replace(result, model=with_errors(replace(model, cam_from_world=poses, points=points)))


@pytest.fixture(scope="module")
def strip() -> tuple[Reconstruction, AdjustResult]:
    """The truth, and a model that is right."""
    truth, matches = flight(0.1, lines=1, along=STRIP)
    tracks = build_tracks(matches, STRIP)
    return truth, adjust_model(truth, tracks, CONFIG, working_scale=np.ones(STRIP), held=Held.nothing(truth))


def shape_rms_m(model: Reconstruction, truth: Reconstruction) -> float:
    centres, true = camera_centres(model.cam_from_world), camera_centres(truth.cam_from_world)
    scale, pose = fit_similarity(centres, true)
    return float(np.sqrt(((scale * centres @ pose[:, :3].T + pose[:, 3] - true) ** 2).mean()))


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, all_points_up_to=10)], ids=["all points", "thinned"])
def test_a_bent_strip_is_straightened(strip, config: AdjustConfig) -> None:
    """By positions of which a fifth are wrong; these are named, and no other."""
    truth, straight = strip
    result = bent(straight, 0.15)
    assert shape_rms_m(result.model, truth) > 1
    geo, wrong = recorded(truth, sigma=RTK_M, noise=RTK_M), np.arange(3, STRIP, 5)
    enu_m = geo.enu_m.copy()
    enu_m[wrong] += 3 * np.random.default_rng(1).choice([-1.0, 1.0], (len(wrong), 3))
    judged, found = run(result, replace(geo, enu_m=enu_m), config=config)
    assert found.mode == "prior" and found.problem is None
    assert len(judged.result.model.points) >= 0.99 * len(result.model.points)
    assert np.flatnonzero(found.outliers).tolist() == wrong.tolist()
    assert position_rms_m(judged.result.model, truth) < RTK_M
    assert found.straightened_m > 1
    stated = np.sqrt((judged.uncertainty.position**2).mean() / 3)
    assert position_rms_m(judged.result.model, truth) < 2 * stated
    said = [line.text for line in placement_lines(found, [f"{k}.jpg" for k in range(STRIP)], "auto")]
    assert any("it was bent" in text and f"{found.straightened_m:.1f} m" in text for text in said)


def test_noise_that_nobody_claims_straightens_nothing(strip) -> None:
    truth, straight = strip
    result = bent(straight, 0.1)
    for noise in (30 * RTK_M, 300 * RTK_M):
        judged, found = run(result, recorded(truth, sigma=RTK_M, noise=noise))
        assert found.mode == "check" and judged.result is result
        assert found.problem and found.straightened_m is None


def test_positions_of_a_part_that_contradict_the_photographs_bend_nothing(strip) -> None:
    """A third of the way is recorded ten metres to the side."""
    truth, straight = strip
    geo = recorded(truth, sigma=RTK_M, noise=RTK_M)
    enu_m = geo.enu_m.copy()
    enu_m[-STRIP // 3 :, 1] += 10
    judged, found = run(straight, replace(geo, enu_m=enu_m))
    assert found.mode == "check" and judged.result is straight
    assert "off together with those around them" in found.problem


@pytest.mark.parametrize("gps", ["auto", "align"])
def test_positions_with_east_for_west_do_not_turn_a_flat_flight_over(gps: Literal["auto", "align"]) -> None:
    truth, result = reconstructed(0.0)
    right = recorded(truth)
    for sign, expected in ((1, "prior" if gps == "auto" else "align"), (-1, "check" if gps == "auto" else "align")):
        images = replace(
            image_set(make_scene(SceneConfig(num_images=NUM, size_wh=(320, 240)))),
            geo=replace(right, enu_m=right.enu_m * [sign, 1, 1]),
        )
        config = PipelineConfig(gps=gps, adjust=CONFIG)
        judged, place, _ = _with_records(result, images, config, None, SILENT)
        assert place is not None and place.mode == expected
        assert (place.problem or "").startswith("they turn it upside down") == (sign < 0)
        lines = placement_lines(place, [str(view) for view in range(NUM)], gps)
        assert lines[0].is_warning == (sign < 0)
        looks_down = judged.result.model.cam_from_world[:, 2, 2] < 0
        assert (place.mode == "check") or (looks_down.all() == (sign > 0))
