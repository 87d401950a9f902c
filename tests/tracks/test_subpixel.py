"""Sub-pixel refinement: alignment of windows with known motion, and tracks in photographs of a known scene."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import coarse_scene
from anchorsfm.io.pictures import load_grey
from anchorsfm.io.store import Store
from anchorsfm.scene.edit import select_observations
from anchorsfm.scene.images import ImageSet
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Tracks
from anchorsfm.synthetic import SceneConfig, make_scene, write_photographs
from anchorsfm.tracks.build import build_tracks
from anchorsfm.tracks.coarse import CoarseKeypoints
from anchorsfm.tracks.config import SubpixelConfig
from anchorsfm.tracks.patches import StepLimits, Warps, _linearise, align_patches, cut_templates, grey_pyramid
from anchorsfm.tracks.precision import refine_coarse
from anchorsfm.tracks.references import best_of_track, expected_affine, rank_by_covisibility, rank_by_direction
from anchorsfm.tracks.subpixel import ObservationStatus, refine_observations
from cluster_tools import Elsewhere, SetsAside
from coarse_scene import coarse_matches, errors_against_reference, true_model
from point_scene import perturb

LIMITS = StepLimits(max_iterations=15, step_px=0.002)
PIXEL_PX = 3.0


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Work this small is slowed down by threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ----------------------------------------------------------------------------------------------------- windows


def texture(xy: np.ndarray, seed: int = 0) -> np.ndarray:
    """Grey values of a smooth picture at any place."""
    rng = np.random.default_rng(seed)
    angle, wave = rng.uniform(0, 2 * np.pi, 60), rng.uniform(4.0, 20.0, 60)
    k = 2 * np.pi / wave[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return 128 + 9 * np.cos(xy @ k.T + rng.uniform(0, 2 * np.pi, 60)).sum(axis=-1)


def picture(xy_of_texture, size_wh=(320, 240), gain: float = 1.0, bias: float = 0.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(size_wh[0]) + 0.5, np.arange(size_wh[1]) + 0.5)
    grey = gain * texture(xy_of_texture(np.stack([x, y], axis=-1))) + bias
    return np.clip(np.round(grey), 0, 255).astype(np.uint8)


def places(number: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform([40, 40], [280, 200], (number, 2))


def still(xy: np.ndarray) -> Warps:
    return Warps(centre=xy, affine=np.tile(np.eye(2), (len(xy), 1, 1)))


def test_pyramid_levels_scale_pixels_exactly():
    ramp = np.round(np.arange(200) + 20.0)[None].repeat(60, 0).astype(np.uint8)  # grey = x + 19.5
    levels = grey_pyramid(ramp, 4)
    assert [level.shape for level in levels] == [(60, 200), (30, 100), (15, 50), (7, 25)]
    for number, level in enumerate(levels):
        x = np.arange(5, 20) + 0.5
        assert np.abs(level[3, 5:20] - (x * 2**number + 19.5)).max() <= 0.6 * (number > 0)


def test_recovers_affine_motion_brightness_and_contrast():
    affine, move = np.array([[1.06, 0.08], [-0.05, 0.95]]), np.array([3.3, -7.8])
    reference = picture(lambda xy: xy)
    other = picture(lambda xy: (xy - move) @ np.linalg.inv(affine).T, gain=0.6, bias=30)
    xy = places(200)
    truth = xy @ affine.T + move
    start = still(truth + np.random.default_rng(0).uniform(-1.2, 1.2, truth.shape))
    found = align_patches(cut_templates(reference, xy, 7), other, start, LIMITS)
    good = found.converged & (found.score > 0.9)
    error = np.linalg.norm(found.warps.centre - truth, axis=1)[good]
    assert good.mean() > 0.95
    assert np.median(error) < 0.02
    assert np.median(found.score[good]) > 0.999
    assert np.abs(np.median(found.warps.affine[good], axis=0) - affine).max() < 0.01


def test_predicted_sigma_is_the_scatter():
    rng = np.random.default_rng(0)
    clean = picture(lambda xy: xy)
    noisy = [np.clip(np.round(clean + 4 * rng.standard_normal(clean.shape)), 0, 255).astype(np.uint8) for _ in "ab"]
    xy = places(600)
    found = align_patches(cut_templates(noisy[0], xy, 6), noisy[1], still(xy), LIMITS)
    good = found.converged
    scatter = np.sqrt(((found.warps.centre - xy)[good] ** 2).max(axis=1).mean())
    assert good.mean() > 0.95
    assert 0.6 < scatter / np.sqrt((found.sigma_px[good] ** 2).mean()) < 1.4


def test_jacobian_is_the_derivative_of_the_normalised_window():
    xy = places(20)
    reference = picture(lambda xy: xy)
    linearised = _linearise(cut_templates(reference, xy, 6), np.arange(20), torch.device("cpu"))
    place = linearised.place.numpy().astype(float)

    def values(a, b):
        window = texture(xy[:, None] + place + a + place @ np.asarray(b).T)
        window = window - window.mean(axis=1, keepdims=True)
        return window / np.linalg.norm(window, axis=1, keepdims=True)

    for number in range(6):
        step = np.zeros(6)
        step[number] = 1e-4
        ahead, behind = values(step[:2], step[2:].reshape(2, 2)), values(-step[:2], -step[2:].reshape(2, 2))
        numeric = (ahead - behind) / 2e-4
        analytic = linearised.jacobian[:, number].numpy()
        cosine = (numeric * analytic).sum(1) / np.linalg.norm(numeric, axis=1) / np.linalg.norm(analytic, axis=1)
        assert np.median(cosine) > 0.99
        assert 0.8 < np.median(np.linalg.norm(analytic, axis=1) / np.linalg.norm(numeric, axis=1)) < 1.1


def test_windows_without_texture_or_outside_are_not_compared():
    flat = np.full((60, 80), 90, np.uint8)
    edge = flat.copy()
    edge[:, 40:] = 200
    templates = cut_templates(flat, np.array([[30.0, 30.0], [2.0, 30.0]]), 5)
    assert templates.inside.tolist() == [True, False]
    found = align_patches(templates, flat, still(np.array([[30.0, 30.0], [2.0, 30.0]])), LIMITS)
    assert (found.score == -1).all() and np.isinf(found.sigma_px).all() and not found.converged.any()
    at = np.array([[40.0, 30.0]])
    along_edge = align_patches(cut_templates(edge, at, 5), edge, still(at), LIMITS)
    assert along_edge.score[0] > 0.99
    noise = np.random.default_rng(0).normal(0, 2, edge.shape)
    other = np.clip(edge + noise, 0, 255).astype(np.uint8)
    assert align_patches(cut_templates(edge, at, 5), other, still(at), LIMITS).sigma_px[0] > 0.5
    outside = align_patches(cut_templates(edge, at, 5), edge, still(np.array([[-20.0, 30.0]])), LIMITS)
    assert outside.score[0] == -1
    nothing = align_patches(cut_templates(edge, at[:0], 5), edge, still(at[:0]), LIMITS)
    assert len(nothing.score) == 0


# ------------------------------------------------------------------------------------------------------- tracks


@pytest.fixture(scope="module")
def scene():
    return make_scene(SceneConfig(num_images=5, size_wh=(640, 480), arc_deg=32.0, seed=5))


@pytest.fixture(scope="module")
def images(scene, tmp_path_factory) -> ImageSet:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(scene, folder)
    return coarse_scene.photographs(scene, folder / "images")


@pytest.fixture(scope="module")
def tracks(scene) -> Tracks:
    return build_tracks(coarse_matches(scene, pixel_px=PIXEL_PX, points_per_image=150), scene.num_images)


def uncertainty(images, px=1.5):
    return np.full(images.num_images, px)


def reference_rows(tracks, result):
    rows = np.flatnonzero(result.status == ObservationStatus.REFERENCE)
    assert (np.diff(tracks.obs_point[rows]) == 1).all()
    return rows


def moved(tracks, result):
    """All observations, the refined ones at their new places."""
    xy = tracks.obs_xy.copy()
    xy[result.kept] = result.tracks.obs_xy
    return replace(tracks, obs_xy=xy)


@pytest.mark.parametrize("with_model", [False, True])
def test_grid_matches_become_sub_pixel(scene, images, tracks, with_model):
    model = perturb(true_model(scene), degrees=0.3, distance=0.02, focal=1.02) if with_model else None
    result = refine_observations(tracks, images, SubpixelConfig(), uncertainty_px=uncertainty(images), model=model)
    rows = reference_rows(tracks, result)
    before, visible = errors_against_reference(scene, tracks, rows)
    after, _ = errors_against_reference(scene, moved(tracks, result), rows)
    refined = (result.status == ObservationStatus.REFINED) & visible
    others = (result.status != ObservationStatus.REFERENCE) & visible
    assert np.median(before[others]) > 1.0
    assert np.median(after[refined]) < 0.12
    assert np.percentile(after[refined], 90) < 0.5
    assert refined[others & (before < 4)].mean() > 0.75
    wrong = ~visible | (before > 15)  # outliers and points that the rounding put behind an edge
    assert result.accepted[wrong & (result.status != ObservationStatus.REFERENCE)].mean() < 0.2
    same = result.status[result.kept] == ObservationStatus.REFERENCE
    assert (result.tracks.obs_xy[same] == tracks.obs_xy[result.kept][same]).all()
    assert np.bincount(result.tracks.obs_point).min() >= 2


def test_model_brings_turned_and_smaller_photographs_together(scene, images, tracks, tmp_path):
    """Photograph 2 at half size and turned by a quarter; photographs 1 and 3 by themselves are untouched."""
    for image in range(scene.num_images):
        grey = Image.fromarray(load_grey(images, image))
        if image == 2:
            grey = grey.resize((320, 240), Image.Resampling.BOX).transpose(Image.Transpose.ROTATE_90)
        grey.save(tmp_path / f"{image}.png")
    size_wh = images.size_wh.copy()
    size_wh[2] = [240, 320]
    names = tuple(f"{image}.png" for image in range(scene.num_images))
    turned = coarse_scene.with_digests(replace(images, root=tmp_path, names=names, size_wh=size_wh))
    # counterclockwise: (x, y) -> (y, width - x)
    here = tracks.obs_image == 2
    xy = tracks.obs_xy.copy()
    xy[here] = np.stack([tracks.obs_xy[here, 1], 640 - tracks.obs_xy[here, 0]], axis=1) / 2
    start = true_model(scene, "SIMPLE_PINHOLE")
    camera = start.cameras[0]
    small = replace(camera, width=240, height=320, params=(camera.params[0] / 2, 120.0, 160.0))
    poses = start.cam_from_world.copy()
    poses[2] = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) @ poses[2]
    index = np.array([0, 0, 1, 0, 0])
    model = replace(start, cameras=(camera, small), camera_index=index, cam_from_world=poses)

    result = refine_observations(
        replace(tracks, obs_xy=xy), turned, SubpixelConfig(),
        uncertainty_px=np.array([1.5, 1.5, 0.75, 1.5, 1.5]), model=model,
    )  # fmt: skip
    back = replace(tracks, obs_xy=moved(replace(tracks, obs_xy=xy), result).obs_xy)
    back.obs_xy[here] = np.stack([640 - 2 * back.obs_xy[here, 1], 2 * back.obs_xy[here, 0]], axis=1)
    error, visible = errors_against_reference(scene, back, reference_rows(tracks, result))
    reference_in_small = here[reference_rows(tracks, result)][tracks.obs_point]
    crossing = (result.status != ObservationStatus.REFERENCE) & visible & (here | reference_in_small)
    refined = crossing & (result.status == ObservationStatus.REFINED)
    assert crossing.sum() > 200
    assert refined.sum() > 0.6 * crossing.sum()
    assert np.median(error[refined]) < 0.25  # pixels of the full size: an eighth of a pixel of the small photograph

    blind = refine_observations(
        replace(tracks, obs_xy=xy), turned, SubpixelConfig(), uncertainty_px=np.array([1.5, 1.5, 0.75, 1.5, 1.5])
    )
    assert (blind.status[here] == ObservationStatus.REFINED).mean() < 0.1


def test_expected_affine_is_the_derivative_of_a_plane(scene):
    """Points of planes that face photographs 0 and 3 alike, seen in either."""
    model = true_model(scene)
    rng = np.random.default_rng(0)
    xy = rng.uniform([250, 180], [400, 300], (50, 2))
    pose = scene.cam_from_world
    centre = [-(p[:, :3].T @ p[:, 3]) for p in pose]

    def ray(pixels):
        direction = np.column_stack([(pixels - scene.principal_point_px) / scene.focal_px[0], np.ones(len(pixels))])
        return direction @ pose[0, :, :3]

    point = centre[0] + 2.5 * ray(xy)
    facing = sum((point - c) / np.linalg.norm(point - c, axis=1, keepdims=True) for c in (centre[0], centre[3]))

    def seen(pixels):
        along = ((point - centre[0]) * facing).sum(1) / (ray(pixels) * facing).sum(1)
        in_cam = (centre[0] + along[:, None] * ray(pixels)) @ pose[3, :, :3].T + pose[3, :, 3]
        return in_cam[:, :2] / in_cam[:, 2:] * scene.focal_px[3] + scene.principal_point_px

    tracks = Tracks(
        obs_point=np.repeat(np.arange(50), 2), obs_image=np.tile([0, 3], 50),
        obs_xy=np.stack([xy, seen(xy)], axis=1).reshape(-1, 2),
    )  # fmt: skip
    affine = expected_affine(tracks, np.arange(0, 100, 2), model, np.full(5, 2.0))
    columns = [(seen(xy + step) - seen(xy - step)) / 2e-3 for step in 1e-3 * np.eye(2)]
    assert np.abs(affine[1::2] - np.stack(columns, axis=2)).max() < 0.02
    assert (affine[::2] == np.eye(2)).all()


def test_references_are_in_the_middle(scene):
    """Of views on an arc the middle one is the reference, however it is found."""
    point = np.array([[0.0, 0.4, 0.0]])
    xy = np.stack([coarse_scene.see(scene, image, point)[0][0] for image in range(5)])
    track = Tracks(obs_point=np.zeros(5, np.int64), obs_image=np.arange(5), obs_xy=xy)
    assert best_of_track(track, rank_by_direction(track, true_model(scene)))[0] == 2
    pairs = np.array([[0, 1], [1, 2], [1, 2], [1, 2], [2, 3], [2, 3], [2, 3], [3, 4]])
    many = Tracks(
        obs_point=np.r_[np.zeros(5, np.int64), 1 + np.arange(8).repeat(2)],
        obs_image=np.r_[np.arange(5), pairs.ravel()],
        obs_xy=np.full((21, 2), 50.0),
    )
    assert many.obs_image[best_of_track(many, rank_by_covisibility(many, 5))[0]] == 2
    assert best_of_track(track, np.array([3.0, 5.0, 1.0, 4.0, 5.0]))[0] == 1
    assert best_of_track(track, np.array([3.0, 5.0, 1.0, 4.0, 5.0]), place=1)[0] == 4
    assert best_of_track(track, np.array([3.0, 5.0, 1.0, 4.0, 5.0]), place=9)[0] == 2


def test_wrong_reference_is_replaced(scene, images, tracks):
    """The observation that would be the reference is somewhere else: the others still find each other."""
    long = np.flatnonzero(np.bincount(tracks.obs_point) >= 4)
    part, _ = select_observations(tracks, np.isin(tracks.obs_point, long))
    spoilt = best_of_track(part, rank_by_covisibility(part, images.num_images))
    xy = part.obs_xy.copy()
    xy[spoilt] = (xy[spoilt] + [230, 170]) % [600, 440] + 20
    spoilt_tracks = replace(part, obs_xy=xy)
    options = {"uncertainty_px": uncertainty(images)}
    good = refine_observations(part, images, SubpixelConfig(), **options)
    bad = refine_observations(spoilt_tracks, images, SubpixelConfig(), **options)
    others = np.ones(len(xy), bool)
    others[spoilt] = False
    assert not bad.accepted[spoilt].all()
    assert bad.accepted[others].sum() > 0.75 * good.accepted[others].sum()
    assert bad.accepted[spoilt].mean() < 0.1


def test_coarse_tracks_become_exact_where_photographs_agree(scene, images, tracks):
    """Every second track is exact already: it stays, bit for bit."""
    is_coarse = tracks.obs_point % 2 == 1
    coarse = CoarseKeypoints.of(tracks.obs_image[is_coarse], tracks.obs_xy[is_coarse])
    model = perturb(true_model(scene), degrees=0.3, distance=0.02, focal=1.02)
    both, left = refine_coarse(
        tracks, coarse, images, SubpixelConfig(), uncertainty_px=uncertainty(images), model=model
    )
    exact, _ = select_observations(tracks, ~is_coarse)
    assert (both.obs_xy[: len(exact.obs_xy)] == exact.obs_xy).all()
    assert (np.diff(both.obs_point) >= 0).all() and np.bincount(both.obs_point).min() >= 2
    stays = left.among(both.obs_image, both.obs_xy)
    assert coarse.among(both.obs_image[stays], both.obs_xy[stays]).all()
    refined = (both.obs_point >= exact.num_points) & ~np.isin(both.obs_point, both.obs_point[stays])
    assert refined.sum() > 0.5 * is_coarse.sum() and stays.any()
    unmoved = coarse.among(both.obs_image[refined], both.obs_xy[refined])
    assert unmoved.mean() < 0.6, "the references"
    part, _ = select_observations(both, refined)
    first = np.searchsorted(part.obs_point, np.arange(part.num_points))
    error, visible = errors_against_reference(scene, part, first)
    assert np.median(error[visible]) < 0.3


def test_failures_can_be_kept(images, tracks):
    options = {"uncertainty_px": uncertainty(images)}
    dropped = refine_observations(tracks, images, SubpixelConfig(), **options)
    kept = refine_observations(tracks, images, SubpixelConfig(on_failure="keep"), **options)
    assert kept.kept.all() and (kept.status == dropped.status).all()
    assert (~dropped.accepted).any()
    assert (kept.tracks.obs_xy[~kept.accepted] == tracks.obs_xy[~kept.accepted]).all()
    assert (kept.tracks.obs_xy[dropped.kept] == dropped.tracks.obs_xy).all()
    assert (kept.tracks.obs_point == tracks.obs_point).all()


def test_portions_and_batches_do_not_change_the_result(images, tracks):
    options = {"uncertainty_px": uncertainty(images)}
    few, _ = select_observations(tracks, tracks.obs_point < 20)
    whole = refine_observations(few, images, SubpixelConfig(), **options)
    again = refine_observations(few, images, SubpixelConfig(), **options)
    assert np.array_equal(whole.tracks.obs_xy, again.tracks.obs_xy)
    split = refine_observations(few, images, SubpixelConfig(window_memory_mib=0, batch_size=7), **options)
    assert (split.status == whole.status).mean() > 0.98  # sums of another batch size differ in their last digits
    both = split.accepted & whole.accepted
    assert np.abs(moved(few, split).obs_xy - moved(few, whole).obs_xy)[both].max() < 0.02


def test_photographs_are_aligned_elsewhere_with_the_same_bits(images, tracks, tmp_path):
    options = {"uncertainty_px": uncertainty(images)}
    few, _ = select_observations(tracks, tracks.obs_point < 20)
    here = refine_observations(few, images, SubpixelConfig(), **options)
    store = Store(tmp_path)
    store.executor = executor = Elsewhere()
    for num_made in (len(np.unique(few.obs_image)), 0):
        executor.rows.clear()
        there = refine_observations(few, images, SubpixelConfig(), store=store, **options)
        assert executor.rows["refining observations"] == num_made, "what is there is not made again"
        for name in ("score", "sigma_px", "status", "shift_px", "kept"):
            assert np.array_equal(getattr(there, name), getattr(here, name), equal_nan=name != "kept")
        assert np.array_equal(there.tracks.obs_xy, here.tracks.obs_xy)
    files = list((tmp_path / "refined-observations").iterdir())
    refine_observations(few, images, SubpixelConfig(max_iterations=3), store=store, **options)
    assert len(list((tmp_path / "refined-observations").iterdir())) > len(files), "other settings are others"


def test_nothing_is_refined_in_a_photograph_that_kills_workers(images, tracks, tmp_path):
    few, _ = select_observations(tracks, tracks.obs_point < 20)
    store = Store(tmp_path)
    store.executor = executor = SetsAside("refining observations")
    found = refine_observations(few, images, SubpixelConfig(), uncertainty_px=uncertainty(images), store=store)
    in_it = few.obs_image == images.names.index(executor.name)
    assert in_it.any() and not (found.status[in_it] == ObservationStatus.REFINED).any()
    assert (found.status[~in_it] == ObservationStatus.REFINED).any()


class CountingProgress(Progress):
    def __init__(self):
        self.steps = {}

    def stage(self, description, total=None):
        from contextlib import contextmanager

        @contextmanager
        def inner():
            self.steps[description] = [0, total]

            def advance(count):
                self.steps[description][0] += count

            yield advance

        return inner()


def test_border_flat_photographs_and_nothing(images, tracks, tmp_path):
    progress = CountingProgress()
    edge = Tracks(
        obs_point=np.zeros(3, np.int64), obs_image=np.arange(3), obs_xy=np.array([[300.0, 200], [1.0, 1.0], [640, 480]])
    )
    result = refine_observations(edge, images, SubpixelConfig(), uncertainty_px=uncertainty(images), progress=progress)
    assert result.status.tolist() == [ObservationStatus.REFERENCE, ObservationStatus.OUTSIDE, ObservationStatus.OUTSIDE]
    assert not result.kept.any() and result.tracks.num_points == 0
    assert all(done == total for done, total in progress.steps.values()) and progress.steps
    for name in images.names:
        Image.new("L", (640, 480), 70).save(tmp_path / name)
    flat = coarse_scene.with_digests(replace(images, root=tmp_path))
    black = refine_observations(tracks, flat, SubpixelConfig(), uncertainty_px=uncertainty(images))
    assert black.tracks.num_points == 0 and (black.score[black.status > 0] == -1).all()
    empty = refine_observations(Tracks.empty(), images, SubpixelConfig(), uncertainty_px=uncertainty(images))
    assert empty.tracks.num_points == 0 and len(empty.kept) == 0
