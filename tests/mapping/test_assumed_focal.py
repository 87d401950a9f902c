"""Two parallel cameras determine neither focal length nor distortion: a usual focal length is assumed, and said so.

Where straight edges of the photographs are at right angles, they show it.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.align.config import AlignConfig
from anchorsfm.colmap.bundle import Held
from anchorsfm.colmap.cameras import focal_length_px, make_camera
from anchorsfm.geometry.right_angles import LineFocal
from anchorsfm.io.store import Store
from anchorsfm.mapping.base import MapperInput, MapperSettings, Start
from anchorsfm.mapping.finish import ModellingSettings, finish_models
from anchorsfm.mapping.incremental import map_incrementally
from anchorsfm.report.numbers import report_model
from anchorsfm.report.remarks import model_remarks
from anchorsfm.run.config import PipelineConfig
from anchorsfm.run.modelling import _with_records, name_undetermined
from anchorsfm.scene.edit import select_views, without_points
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.masks import ImageMask
from anchorsfm.scene.progress import SILENT, Progress
from anchorsfm.scene.reconstruction import Reconstruction
from anchorsfm.tracks import focal_prior
from anchorsfm.tracks.adjust import AdjustResult
from anchorsfm.tracks.build import KeypointMatches
from anchorsfm.tracks.config import AdjustConfig
from anchorsfm.tracks.focal_lines import can_ask_lines
from anchorsfm.tracks.focal_prior import FocalPriors, JudgedModel, settle_focal_lengths
from matched_images import mapper_input
from point_scene import project_pinhole

TRUE_PX, USUAL_PX = 900.0, 1.1 * 1024
SETTINGS = ModellingSettings(adjust=AdjustConfig(), subpixel=None, choose_camera_model=True, from_grid=False)
WIDE, NARROW = 1.0, 0.1
"""Baselines, with points at 4 to 9."""


def pair(
    baseline: float, turn_deg: float = 0.0, start_px: float = 1000.0, noise_px: float = 0.3, ahead: float = 0.0
) -> tuple[MapperInput, Reconstruction]:
    """Matches of two cameras side by side, and where the adjustment starts: their poses, with another focal length.

    The second is turned, and may be further ahead.
    """
    rng = np.random.default_rng(3)
    camera = make_camera("SIMPLE_RADIAL", TRUE_PX, 1024, 768)
    points = rng.uniform([-3, -2, 4], [3, 2, 9], (300, 3))
    poses = np.tile(np.eye(3, 4), (2, 1, 1))
    poses[1, :, :3] = Rotation.from_rotvec([0, np.deg2rad(turn_deg), 0]).as_matrix()
    poses[1, :, 3] = poses[1, :, :3] @ [-baseline, 0, -ahead]
    xy = np.stack([project_pinhole(camera, pose, points) for pose in poses])
    seen = ((xy > 0) & (xy < [1024, 768])).all(-1).all(0)
    xy = xy[:, seen] + noise_px * rng.standard_normal((2, seen.sum(), 2))
    count = xy.shape[1]
    matches = KeypointMatches(
        image_i=np.zeros(count, int), image_j=np.ones(count, int), xy_i=xy[0], xy_j=xy[1],
        confidence=np.full(count, 10.0),
    )  # fmt: skip
    begun = make_camera("SIMPLE_RADIAL", start_px, 1024, 768)
    return mapper_input(matches, 2, begun, is_known=False), without_points(
        np.arange(2), poses, (begun,), np.zeros(2, int)
    )


def finished(given: MapperInput, start: Reconstruction) -> AdjustResult:
    (result,) = finish_models([Start(model=start, held=Held.nothing(start))], given, SETTINGS).results
    return result


def judged(given: MapperInput, start: Reconstruction) -> JudgedModel:
    result = finished(given, start)
    return settle_focal_lengths(result, FocalPriors.of(result.model, given.images), SETTINGS.adjust)


def deviation(one: JudgedModel) -> float:
    """Of the focal length, as a share."""
    (camera,), (params,) = one.result.model.cameras, one.uncertainty.camera_params
    assert params is not None
    return params[0] / focal_length_px(camera)


@pytest.mark.parametrize("baseline", [WIDE, NARROW])
def test_parallel_cameras_make_a_model_with_an_assumed_focal_length(baseline: float) -> None:
    given, start = pair(baseline)
    one = judged(given, start)
    (focal,), (camera,) = one.result.focal, one.result.model.cameras
    assert focal is not None and focal.is_assumed and focal.prior_px == pytest.approx(USUAL_PX)
    assert len(one.result.model.points) > 0.8 * given.tracks.num_points
    assert 0.15 < deviation(one) < 0.4
    assert abs(np.log(focal_length_px(camera) / TRUE_PX)) < 2 * deviation(one)


def test_what_two_views_say_of_a_lens_is_not_taken_where_they_show_no_focal_length() -> None:
    given, start = pair(WIDE)
    result = finished(given, start)
    (focal,), (camera,) = result.focal, result.model.cameras
    assert focal is not None and focal.is_assumed and focal_length_px(camera) == pytest.approx(USUAL_PX)
    assert camera.params[-1] == 0 and not result.options.refine_distortion


def test_exactly_parallel_cameras_are_not_certain_of_a_focal_length() -> None:
    """Their normal equations are singular, and say that the focal length is known to a pixel."""
    given, start = pair(WIDE, noise_px=1e-3)
    assert 0.15 < deviation(judged(given, start)) < 0.4


def test_a_record_is_taken_rather_than_an_assumption() -> None:
    given, start = pair(NARROW)
    images = replace(given.images, focal_prior_px=np.full(2, 910.0), focal_deviation=np.full(2, 0.02))
    one = judged(replace(given, images=images), start)
    (focal,), (camera,) = one.result.focal, one.result.model.cameras
    assert not focal.is_assumed and focal_length_px(camera) == pytest.approx(910, rel=0.01)
    assert deviation(one) == pytest.approx(0.02, rel=0.1)
    assert "assumed" not in said(one, given)


def test_cameras_that_determine_it_need_no_assumption() -> None:
    given, start = pair(5.0, turn_deg=50.0, start_px=930.0)
    one = judged(given, start)
    assert not one.result.focal or one.result.focal[0].weight_of_prior == 0
    assert focal_length_px(one.result.model.cameras[0]) == pytest.approx(TRUE_PX, rel=0.03)


def test_what_is_said_is_that_it_is_assumed_and_how_to_give_it() -> None:
    given, start = pair(NARROW)
    one = judged(given, start)
    assert "assumed" in said(one, given) and "--focal-px" in said(one, given) and "recorded" not in said(one, given)
    assert any("assumed: undetermined" in line for line in model_remarks(one.result, one.uncertainty, given.images))
    model = report_model(0, one.result.model, (), one.uncertainty, given.images.names, focal=one.result.focal)
    (focal,) = model.focal_lengths
    assert focal.assumed_px == pytest.approx(USUAL_PX) and focal.recorded_px is None


def test_the_mapper_of_tracks_makes_a_start_of_a_pair_without_a_focal_length() -> None:
    given, _ = pair(WIDE)
    mapped = map_incrementally(given, MapperSettings(align=AlignConfig(), store=Store(None)), Progress())
    (result,) = finish_models(mapped.starts, given, SETTINGS).results
    assert len(result.model.image_index) == 2


def said(one: JudgedModel, given: MapperInput) -> str:
    lines: list[str] = []

    class Listening(Progress):
        def warn(self, message: str) -> None:
            lines.append(message)

    name_undetermined([one], Listening())
    return "\n".join(lines)


def draw(folder: Path, poses: np.ndarray) -> tuple[str, ...]:
    """Pictures of edges in three directions at right angles; their digests."""
    rng = np.random.default_rng(0)
    frame = (Rotation.from_euler("x", 10, degrees=True) * Rotation.from_euler("y", 35, degrees=True)).as_matrix()
    middle = rng.uniform([-3, -2, 5], [3, 2, 9], (24, 3))
    half = frame[:, rng.integers(0, 3, 24)].T * rng.uniform(0.4, 0.9, (24, 1))
    digests = []
    for view, pose in enumerate(poses):
        picture = np.full((768, 1024), 128, np.uint8)
        for ends, grey in zip(np.stack([middle - half, middle + half], axis=1), rng.integers(0, 90, 24), strict=True):
            in_camera = ends @ pose[:, :3].T + pose[:, 3]
            xy = TRUE_PX * in_camera[:, :2] / in_camera[:, 2:] + [512, 384]
            first, last = (tuple(map(int, np.round(16 * (end - 0.5)))) for end in xy)
            cv2.line(picture, first, last, int(grey), 5, cv2.LINE_AA, 4)
        encoded = cv2.imencode(".png", picture)[1].tobytes()
        (folder / f"{view}.jpg").write_bytes(encoded)
        digests.append(hashlib.sha256(encoded).hexdigest())
    return tuple(digests)


@dataclass(frozen=True)
class Photographed:
    """A pair of cameras with photographs, before their focal length is settled."""

    given: MapperInput
    result: AdjustResult

    def judged(self, images: ImageSet) -> JudgedModel:
        """As a run has it."""
        return _with_records(self.result, images, PipelineConfig(adjust=SETTINGS.adjust), None, SILENT)[0]


def photographed(folder: Path, given: MapperInput, start: Reconstruction) -> Photographed:
    images = replace(given.images, root=folder, digests=draw(folder, start.cam_from_world))
    given = replace(given, images=images)
    return Photographed(given, finished(given, start))


def walk_around(asymmetry: float) -> tuple[MapperInput, Reconstruction]:
    """Two cameras that look at a point 6 away, from about the same distance: matches hardly show a focal length."""
    turn = np.deg2rad(40)
    return pair(6 * np.sin(turn), 40, ahead=6 * (1 - np.cos(turn)) + asymmetry)


@pytest.fixture(scope="module", params=[0.0, 0.05], ids=["held", "free"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Photographed:
    """Before it is settled the focal length is held at the assumed one, or free."""
    return photographed(tmp_path_factory.mktemp("photographs"), *walk_around(request.param))


def test_edges_show_the_focal_length_and_it_is_said(scene: Photographed) -> None:
    given, one = scene.given, scene.judged(scene.given.images)
    (focal,), (camera,), (params,) = one.result.focal, one.result.model.cameras, one.uncertainty.camera_params
    assert focal is not None and focal.is_from_lines and not focal.is_assumed
    assert abs(np.log(focal_length_px(camera) / TRUE_PX)) < focal.sigma_px / TRUE_PX < 0.13
    assert params is not None and params[0] == pytest.approx(focal.sigma_px, rel=0.05)
    assert len(one.result.model.points) == len(scene.result.model.points)
    warning = said(one, given)
    assert "straight edges" in warning and "--focal-px" in warning and "assumed" not in warning
    assert not any("assumed" in line for line in model_remarks(one.result, one.uncertainty, given.images))
    model = report_model(0, one.result.model, (), one.uncertainty, given.images.names, focal=one.result.focal)
    (recorded,) = model.focal_lengths
    assert recorded.lines_px == pytest.approx(focal.prior_px, abs=0.01)
    assert recorded.assumed_px is None and recorded.recorded_px is None


def test_parallel_cameras_do_not_check_right_angles(tmp_path: Path) -> None:
    parallel = photographed(tmp_path, *pair(WIDE))
    (focal,) = parallel.judged(parallel.given.images).result.focal
    assert focal is not None and focal.is_assumed and not focal.is_from_lines


def test_without_edges_that_count_it_is_assumed(scene: Photographed) -> None:
    images = scene.given.images
    nothing = ImageMask.of(np.zeros((768, 1024), bool))
    masked = replace(images, masks=(nothing, nothing))
    changed = replace(images, digests=("another", "picture"))
    missing = replace(images, root=images.root / "missing")
    for without in (masked, changed, missing):
        (focal,) = scene.judged(without).result.focal
        assert focal is not None and focal.is_assumed and not focal.is_from_lines


def test_edges_that_the_matches_contradict_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    given, start = walk_around(0.05)
    result = finished(given, start)
    for focal_px, is_believed in ((TRUE_PX, True), (0.4 * TRUE_PX, False)):
        seen = LineFocal(focal_px=focal_px, deviation=0.05, doubt="")
        monkeypatch.setattr(focal_prior, "focal_in_lines", lambda *_, seen=seen: seen)
        one = settle_focal_lengths(result, FocalPriors.of(result.model, given.images), SETTINGS.adjust, given.images)
        (focal,) = one.result.focal
        assert focal is not None and focal.is_from_lines == is_believed and focal.is_assumed != is_believed


def test_edges_are_asked_only_where_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(focal_prior, "focal_in_lines", lambda *args: asked.append(args))
    given, start = pair(NARROW)
    result = finished(given, start)
    for recorded in (True, False):
        images = given.images
        if recorded:
            images = replace(images, focal_prior_px=np.full(2, 910.0), focal_deviation=np.full(2, 0.02))
        settle_focal_lengths(result, FocalPriors.of(result.model, images), SETTINGS.adjust, images)
        assert bool(asked) != recorded


def test_edges_are_asked_only_of_two_views_of_one_camera() -> None:
    _, model = pair(NARROW)
    assert can_ask_lines(model)
    assert not can_ask_lines(select_views(model, np.array([0])))
    two_cameras = replace(model, cameras=model.cameras * 2, camera_index=np.arange(2))
    assert not can_ask_lines(two_cameras)
