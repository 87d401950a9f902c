"""COLMAP's mappers on our database, and the mapper of our own, on clouds of points with known truth."""

import signal
import threading
from dataclasses import replace

import numpy as np
import pycolmap
import pytest

from anchorsfm.colmap.convert import to_pycolmap
from anchorsfm.colmap.database import estimate_geometries, number_keypoints, write_database
from anchorsfm.colmap.mappers import MapperOptions, _interruptible, _largest_first, map_global, map_incremental
from anchorsfm.geometry.transforms import camera_centres, fit_similarity, rotation_angle_deg
from anchorsfm.mapping.incremental import FromScratchConfig, map_tracks
from anchorsfm.mapping.initial_pair import PairConfig, initial_pairs
from anchorsfm.scene.edit import with_points, without_view
from anchorsfm.scene.progress import Progress
from anchorsfm.scene.reconstruction import Camera, Reconstruction, Tracks
from anchorsfm.tracks.build import KeypointMatches, build_tracks
from anchorsfm.tracks.resect import Registration, points_of_tracks, register_missing
from point_scene import make_lens_scene, make_point_scene, project_pinhole
from unix import unix_only

MAPPERS = ("incremental", "global", "tracks")
CAMERA = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))


def run(kind, matches, num_images, folder, *, cameras=(CAMERA,), camera_index=None, known=None, progress=None):
    """Models by one of the mappers."""
    camera_index = np.zeros(num_images, np.int64) if camera_index is None else camera_index
    progress = progress or Progress()
    if kind == "tracks":
        tracks = build_tracks(matches, num_images)
        scale = np.ones(num_images)
        result = map_tracks(
            tracks, cameras, camera_index, FromScratchConfig(), working_scale=scale, known_camera=known,
            progress=progress,
        )  # fmt: skip
        return list(result.models)
    pairs = number_keypoints(num_images, matches.image_i, matches.image_j, matches.xy_i, matches.xy_j)
    prior = np.ones(len(cameras), bool)
    geometries = estimate_geometries(
        cameras, camera_index, pairs, has_focal_prior=prior, max_error_px=np.full(num_images, 4.0)
    )
    names = [f"folder/{k}.jpg" for k in range(num_images)]
    write_database(folder / "database.db", names, cameras, camera_index, pairs, geometries, has_focal_prior=prior)
    mapper = {"incremental": map_incremental, "global": map_global}[kind]
    return mapper(
        folder / "database.db", pairs.keypoints, MapperOptions(), constant_camera=known, progress=progress
    )  # fmt: skip


def rotation_errors_deg(model: Reconstruction, truth: np.ndarray) -> np.ndarray:
    """Errors of the relative rotations of all pairs of views."""
    ours, true = model.cam_from_world[:, :, :3], truth[model.image_index][:, :, :3]
    i, j = np.triu_indices(len(ours), 1)
    relative = [r[j] @ r[i].transpose(0, 2, 1) for r in (ours, true)]
    return rotation_angle_deg(relative[0] @ relative[1].transpose(0, 2, 1))


def centre_error(model: Reconstruction, truth: np.ndarray) -> float:
    """Largest distance of a camera from its true place after a similarity, relative to the extent of the cameras."""
    source, target = camera_centres(model.cam_from_world), camera_centres(truth)[model.image_index]
    scale, pose = fit_similarity(source, target)
    distance = np.linalg.norm(scale * source @ pose[:, :3].T + pose[:, 3] - target, axis=1)
    return float(distance.max() / np.ptp(target, axis=0).max())


def check_consistent(model: Reconstruction, matches: KeypointMatches) -> None:
    """The model is what the data types promise, and its observations are our keypoints bit for bit."""
    tracks = model.tracks
    assert (np.diff(model.image_index) > 0).all()
    assert np.isin(tracks.obs_image, model.image_index).all()
    assert (np.diff(tracks.obs_point) >= 0).all() and tracks.num_points == len(model.points)
    assert (np.bincount(tracks.obs_point) >= 2).all()
    seen = tracks.obs_point * 1000 + tracks.obs_image
    assert len(np.unique(seen)) == len(seen)
    given = np.concatenate([np.column_stack([matches.image_i, matches.xy_i]),
                            np.column_stack([matches.image_j, matches.xy_j])])  # fmt: skip
    found = np.column_stack([tracks.obs_image, tracks.obs_xy])
    assert {tuple(row) for row in found.tolist()} <= {tuple(row) for row in given.tolist()}


def select(matches: KeypointMatches, keep: np.ndarray) -> KeypointMatches:
    return KeypointMatches(**{name: value[keep] for name, value in vars(matches).items()})


def shifted(matches: KeypointMatches, offset: int) -> KeypointMatches:
    return replace(matches, image_i=matches.image_i + offset, image_j=matches.image_j + offset)


def joined(*parts: KeypointMatches) -> KeypointMatches:
    return KeypointMatches(**{n: np.concatenate([vars(p)[n] for p in parts]) for n in vars(parts[0])})


def rotation_pair(noise_px: float = 0.3) -> KeypointMatches:
    """Two photographs of one scene from one place."""
    rng = np.random.default_rng(4)
    points = rng.uniform([-2, -1.5, 5], [2, 1.5, 9], (500, 3))
    angle = np.deg2rad(12.0)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    poses = [np.eye(3, 4), np.concatenate([turn, np.zeros((3, 1))], axis=1)]
    xy = [project_pinhole(CAMERA, pose, points) + noise_px * rng.standard_normal((500, 2)) for pose in poses]
    inside = np.all([((p >= 0) & (p < [1600, 1200])).all(1) for p in xy], axis=0)
    count = int(inside.sum())
    assert count > 200
    return KeypointMatches(
        image_i=np.zeros(count, np.int64),
        image_j=np.ones(count, np.int64),
        xy_i=xy[0][inside],
        xy_j=xy[1][inside],
        confidence=np.full(count, 10.0),
    )


@pytest.mark.parametrize("kind", MAPPERS)
def test_poses_are_recovered_in_spite_of_wrong_matches(kind, tmp_path):
    scene = make_point_scene(num_points=400, outliers=0.2)
    (model,) = run(kind, scene.matches, 8, tmp_path)
    assert model.image_index.tolist() == list(range(8))
    assert np.median(rotation_errors_deg(model, scene.model.cam_from_world)) < 0.1
    assert centre_error(model, scene.model.cam_from_world) < 5e-3
    assert abs(model.cameras[0].params[0] / 1500 - 1) < 5e-3
    assert len(model.points) > 300
    check_consistent(model, scene.matches)


@pytest.mark.parametrize("kind", MAPPERS)
def test_a_wrong_focal_length_is_corrected(kind, tmp_path):
    scene = make_point_scene(num_points=400, outliers=0.1)
    wrong = replace(CAMERA, params=(1650.0, 800.0, 600.0, 0.0))
    (model,) = run(kind, scene.matches, 8, tmp_path, cameras=(wrong,))
    assert len(model.image_index) == 8
    assert abs(model.cameras[0].params[0] / 1500 - 1) < 5e-3
    assert np.median(rotation_errors_deg(model, scene.model.cam_from_world)) < 0.1


@pytest.mark.parametrize("kind", MAPPERS)
def test_given_intrinsics_stay(kind, tmp_path):
    scene = make_point_scene(num_points=300)
    given = replace(CAMERA, params=(1515.0, 800.0, 600.0, 0.0))
    (model,) = run(kind, scene.matches, 8, tmp_path, cameras=(given,), known=np.array([True]))
    assert len(model.image_index) == 8
    assert model.cameras == (given,)


@pytest.mark.parametrize("kind", MAPPERS)
def test_a_scene_in_two_pieces_gives_two_models_and_a_lone_image_none(kind, tmp_path):
    first, second = make_point_scene(5, 300, outliers=0.1), make_point_scene(4, 300, outliers=0.1, seed=1)
    matches = joined(first.matches, shifted(second.matches, 6))  # image 5 has no matches
    truth = np.concatenate([first.model.cam_from_world, np.eye(3, 4)[None], second.model.cam_from_world])
    cameras = (CAMERA, replace(CAMERA, params=(1490.0, 800.0, 600.0, 0.0)))
    camera_index = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    models = run(kind, matches, 10, tmp_path, cameras=cameras, camera_index=camera_index)
    assert [model.image_index.tolist() for model in models] == [[0, 1, 2, 3, 4], [6, 7, 8, 9]]
    for model in models:
        assert np.median(rotation_errors_deg(model, truth)) < 0.1
        assert len(model.cameras) == 1 and not model.camera_index.any()
        check_consistent(model, matches)


@pytest.mark.parametrize("kind", MAPPERS)
def test_two_images_are_enough(kind, tmp_path):
    scene = make_point_scene(2, 300)
    (model,) = run(kind, scene.matches, 2, tmp_path)
    assert model.image_index.tolist() == [0, 1]
    assert rotation_errors_deg(model, scene.model.cam_from_world)[0] < 0.2
    assert len(model.points) > 200


@pytest.mark.parametrize("kind", MAPPERS)
def test_a_camera_that_only_turned_gives_no_model(kind, tmp_path):
    assert run(kind, rotation_pair(), 2, tmp_path) == []


def test_a_camera_that_only_turned_gives_no_model_with_a_wrong_focal_length_either(tmp_path):
    wrong = replace(CAMERA, params=(1650.0, 800.0, 600.0, 0.0))
    assert run("tracks", rotation_pair(), 2, tmp_path, cameras=(wrong,)) == []


@pytest.mark.parametrize("kind", MAPPERS)
def test_no_matches_give_no_model(kind, tmp_path):
    matches = make_point_scene(2, 50).matches
    matches = select(matches, np.zeros(len(matches.confidence), bool))
    assert run(kind, matches, 3, tmp_path) == []


@pytest.mark.parametrize("kind", MAPPERS)
def test_equal_input_gives_equal_bits(kind, tmp_path):
    scene = make_point_scene(6, 250, outliers=0.2)
    (first,), (second,) = (run(kind, scene.matches, 6, tmp_path) for _ in range(2))
    assert np.array_equal(first.cam_from_world, second.cam_from_world)
    assert np.array_equal(first.points, second.points)
    assert first.cameras == second.cameras


class Steps(Progress):
    def __init__(self):
        self.done = 0

    def stage(self, description, total=None):
        from contextlib import nullcontext

        def advance(count):
            self.done += count

        return nullcontext(advance)


@pytest.mark.parametrize("kind", ["incremental", "tracks"])
def test_progress_counts_images(kind, tmp_path):
    steps = Steps()
    run(kind, make_point_scene(6, 250).matches, 6, tmp_path, progress=steps)
    assert steps.done == 6


def test_colmap_is_silent_and_leaves_nothing(tmp_path, capfd):
    level = pycolmap.logging.minloglevel
    matches = make_point_scene(4, 200).matches
    pairs = number_keypoints(4, matches.image_i, matches.image_j, matches.xy_i, matches.xy_j)
    assert run("incremental", matches, 4, tmp_path)
    before = (tmp_path / "database.db").read_bytes()
    assert map_global(tmp_path / "database.db", pairs.keypoints, MapperOptions())
    assert (tmp_path / "database.db").read_bytes() == before
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    assert pycolmap.logging.minloglevel == level
    assert [path.name for path in tmp_path.iterdir()] == ["database.db"]


def test_an_image_of_two_models_stays_in_the_larger_one():
    scene = make_point_scene(8, 200)
    (full,) = map_tracks(
        build_tracks(scene.matches, 8), (CAMERA,), np.zeros(8, np.int64), FromScratchConfig(), working_scale=np.ones(8)
    ).models
    first, second = full, full
    for image in (5, 6, 7):
        first = without_view(first, first.image_index.tolist().index(image))
    for image in (0, 1, 2, 3):
        second = without_view(second, second.image_index.tolist().index(image))
    names = [f"{k}.jpg" for k in range(8)]
    keypoints = []
    models = {0: to_pycolmap(second, names), 1: to_pycolmap(first, names)}
    for k in range(8):  # numbered as in the models, which hold the same points of image 4 at different places
        source = first if k < 4 else second
        keypoints.append(source.tracks.obs_xy[source.tracks.obs_image == k])
    kept = _largest_first(models, [*keypoints[:4], keypoints[4], *keypoints[5:]], MapperOptions())
    assert [model.image_index.tolist() for model in kept] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert not (kept[1].tracks.obs_image == 4).any()
    assert (np.bincount(kept[1].tracks.obs_point) >= 2).all()


@unix_only
def test_an_interrupt_cancels_and_passes_on():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        _interrupt_and_expect_cancelling()
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_and_expect_cancelling():
    started, cancelled = threading.Event(), threading.Event()

    def work():
        started.set()
        assert cancelled.wait(10)
        return {}

    main = threading.main_thread().ident

    def interrupt():
        started.wait(10)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        _interruptible(work, cancelled.set)
    assert cancelled.is_set()


def test_an_error_in_the_thread_is_raised():
    def work():
        raise ValueError("no such database")

    with pytest.raises(ValueError, match="no such database"):
        _interruptible(work)


def test_the_first_pair_has_a_wide_baseline():
    scene = make_point_scene(8, 400, outliers=0.1)
    tracks = build_tracks(scene.matches, 8)
    index = np.zeros(8, np.int64)
    best = next(initial_pairs(tracks, np.arange(8), (CAMERA,), index, PairConfig(), working_scale=np.ones(8)))
    assert best.min_angle_deg == 16.0
    assert best.j - best.i >= 2  # neighbours see the cloud under about 11 degrees
    few = PairConfig(max_candidates=5)
    assert 1 <= len(list(initial_pairs(tracks, np.arange(8), (CAMERA,), index, few, working_scale=np.ones(8)))) <= 5
    none = initial_pairs(tracks, np.arange(1), (CAMERA,), index, PairConfig(), working_scale=np.ones(8))
    assert list(none) == []


def test_reasons_name_what_was_missing(tmp_path):
    scene = make_point_scene(6, 300)
    matches = scene.matches
    touches = (matches.image_i == 5) | (matches.image_j == 5)
    few = select(matches, ~touches | (np.cumsum(touches) <= 12))
    result = map_tracks(
        build_tracks(few, 7), (CAMERA,), np.zeros(7, np.int64), FromScratchConfig(), working_scale=np.ones(7)
    )
    assert [model.image_index.tolist() for model in result.models] == [[0, 1, 2, 3, 4]]
    assert result.unregistered.keys() == {5, 6}
    assert "observations" in result.unregistered[5]
    assert result.unregistered[6] == "it has no matches"


def test_a_missing_image_is_registered_against_the_points():
    scene = make_point_scene(8, 400, outliers=0.1)
    tracks = build_tracks(scene.matches, 8)
    index = np.array([0, 0, 0, 1, 0, 0, 0, 2])
    cameras = (CAMERA, CAMERA, replace(CAMERA, params=(1503.0, 800.0, 600.0, 0.0)))
    (full,) = map_tracks(tracks, cameras, index, FromScratchConfig(), working_scale=np.ones(8)).models
    part = without_view(without_view(full, 7), 3)
    used = np.unique(part.camera_index)
    part = replace(part, cameras=tuple(part.cameras[c] for c in used), camera_index=np.zeros(6, np.int64))
    registration = register_missing(
        part, tracks, np.array([3, 7]), cameras=cameras, camera_index=index, max_error_px=np.full(8, 8.0),
        min_inliers=30,
    )  # fmt: skip
    grown = registration.model
    assert registration.added.keys() == {3, 7} and min(registration.added.values()) > 100
    assert registration.refused == {}
    assert grown.image_index.tolist() == list(range(8))
    assert grown.camera_index.tolist() == index.tolist()
    assert grown.cameras[0] == part.cameras[0] and grown.cameras[2] == cameras[2]
    assert np.array_equal(grown.points, part.points)
    assert np.bincount(grown.tracks.obs_image)[3] == registration.added[3]
    assert np.median(rotation_errors_deg(grown, scene.model.cam_from_world)) < 0.1
    check_consistent(grown, scene.matches)


def test_views_that_few_points_in_one_spot_show_wait_for_others(monkeypatch) -> None:
    """Of what the first two views show, view 3 sees a strip, and view 2 less, but everywhere; what view 0 shows besides
    is known when view 2 is there, and of that view 3 sees a lot."""
    truth = make_lens_scene((CAMERA,), 4, 20_000, noise_px=1.0, extent=2.0)
    image, point, xy = truth.tracks.obs_image, truth.tracks.obs_point, truth.tracks.obs_xy
    number, alone = point % 40, point % 2 == 0
    strip = np.abs(xy - [CAMERA.width / 2, CAMERA.height / 2]).max(axis=1) < 45
    in_strip = np.flatnonzero((image == 3) & alone & strip)[:60]
    spread = np.flatnonzero((image == 2) & alone & (number == 0))[:50]
    keep = ((image < 2) & alone & (number < 6)) | ((image != 1) & ~alone & (number < 4))
    keep[in_strip] = keep[spread] = True
    for view in (0, 1):  # they show whatever the others do
        keep |= (image == view) & np.isin(point, point[[*in_strip, *spread]])
    asked: list[list[int]] = []

    def register(model, tracks, batch, **options) -> Registration:
        asked.append(batch.tolist())
        return register_missing(model, tracks, batch, **options)

    monkeypatch.setattr("anchorsfm.mapping.incremental.register_missing", register)
    tracks = Tracks(obs_point=point[keep], obs_image=image[keep], obs_xy=xy[keep])
    index, scale = np.zeros(4, np.int64), np.ones(4)
    (model,) = map_tracks(tracks, (CAMERA,), index, FromScratchConfig(), working_scale=scale).models
    assert asked == [[2, 3], [2], [3]]
    assert rotation_errors_deg(model, truth.cam_from_world).max() < 0.1


def test_points_of_two_views_place_a_view_that_no_others_place() -> None:
    """Views 0 to 3 share many points; of what view 4 shows only 2 and 3 see anything."""
    truth = make_lens_scene((CAMERA,), 5, 3_000, extent=2.0)
    image, point = truth.tracks.obs_image, truth.tracks.obs_point
    apart = point % 6 == 0
    keep = np.where(apart, image > 1, image < 4)
    tracks = Tracks(obs_point=point[keep], obs_image=image[keep], obs_xy=truth.tracks.obs_xy[keep])
    index, scale = np.zeros(5, np.int64), np.ones(5)
    (model,) = map_tracks(tracks, (CAMERA,), index, FromScratchConfig(), working_scale=scale).models
    assert model.image_index.tolist() == [0, 1, 2, 3, 4]
    assert rotation_errors_deg(model, truth.cam_from_world).max() < 0.1


def test_an_image_that_does_not_fit_is_refused_with_numbers():
    scene = make_point_scene(6, 300)
    tracks = build_tracks(scene.matches, 6)
    (full,) = map_tracks(tracks, (CAMERA,), np.zeros(6, np.int64), FromScratchConfig(), working_scale=np.ones(6)).models
    part = without_view(full, 5)
    xy = tracks.obs_xy.copy()
    wrong = tracks.obs_image == 5
    xy[wrong] = np.random.default_rng(0).uniform([0, 0], [1600, 1200], (int(wrong.sum()), 2))
    registration = register_missing(
        part, replace(tracks, obs_xy=xy), np.array([5]), cameras=(CAMERA,), camera_index=np.zeros(6, np.int64),
        max_error_px=np.full(6, 8.0), min_inliers=30,
    )  # fmt: skip
    assert registration.added == {}
    assert "agree with a pose" in registration.refused[5]
    assert np.array_equal(registration.model.cam_from_world, part.cam_from_world)
    nothing = with_points(part, Tracks.empty(), np.zeros((0, 3)))
    assert (points_of_tracks(nothing, tracks) == -1).all()
