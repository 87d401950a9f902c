"""Distances between points that are clicked, with deviations that are right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from anchorsfm.colmap.cameras import project
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes
from anchorsfm.tracks.measure import distance_between, observation_deviation_px, point_covariances
from anchorsfm.tracks.residuals import residual_vectors
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.find import find
from anchorsfm.viewer.frame import shown_frame
from anchorsfm.viewer.measure import clicked_point, measure
from finished_run import write_finished_run
from point_scene import make_lens_scene


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    out = tmp_path_factory.mktemp("measure") / "out"
    write_finished_run(out)
    return read_models(out)[0]


def test_deviations_are_what_noise_makes(viewed: StoredModel) -> None:
    model, rng = viewed.model, np.random.default_rng(0)
    pairs = [(0, 1), (5, 30), (12, 50)]
    lengths = []
    for _ in range(200):
        places = {point: _solved(model, point, 0.5 * rng.standard_normal((8, 2))) for pair in pairs for point in pair}
        lengths.append([np.linalg.norm(places[b] - places[a]) for a, b in pairs])
    for (a, b), found in zip(pairs, np.std(lengths, axis=0), strict=True):
        assert distance_between(model, a, b, 0.5).deviation == pytest.approx(found, rel=0.2)


def _solved(model, point: int, noise: np.ndarray) -> np.ndarray:
    """The point from its observations with noise: one Gauss-Newton step from the truth."""
    rows = np.flatnonzero(model.tracks.obs_point == point)
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for row, shift in zip(rows, noise, strict=False):
        view = int(model.tracks.obs_image[row])
        pose, camera = model.cam_from_world[view], model.cameras[model.camera_index[view]]

        def pixel(xyz: np.ndarray, pose=pose, camera=camera) -> np.ndarray:
            return project(camera, (pose[:, :3] @ xyz + pose[:, 3])[None])[0][0]

        step = 1e-5
        jacobian = np.stack(
            [
                (pixel(model.points[point] + step * e) - pixel(model.points[point] - step * e)) / (2 * step)
                for e in np.eye(3)
            ],
            axis=1,
        )
        normal += jacobian.T @ jacobian
        right += jacobian.T @ shift
    return model.points[point] + np.linalg.solve(normal, right)


def test_what_the_residuals_say_of_the_noise(viewed: StoredModel) -> None:
    """Of .4 pixels, in pictures five times as large, about points that are not fitted to them."""
    free = 2 * len(viewed.model.tracks.obs_point)
    expected = 0.08 * np.sqrt(free / (free - 3 * len(viewed.model.points)))
    assert observation_deviation_px(viewed.model) == pytest.approx(expected, rel=0.05)
    assert np.isfinite(point_covariances(viewed.model, np.arange(5), 0.1)).all()


@pytest.mark.parametrize(("noise_px", "deviation"), [(0.0, 0.0), (np.nan, np.inf)])
def test_without_noise_or_knowledge_of_it_there_is_a_length(
    viewed: StoredModel, noise_px: float, deviation: float
) -> None:
    found = distance_between(viewed.model, 0, 1, noise_px)
    assert found.length > 0 and found.deviation == deviation


def test_a_click_means_the_foremost_point_near_its_ray(viewed: StoredModel) -> None:
    frame = shown_frame(viewed.model.cam_from_world, viewed.model.points)
    eye = camera_centres(viewed.model.cam_from_world)[0]
    wanted = int(viewed.model.tracks.obs_point[viewed.observations(0)[7]])
    away = frame.points(viewed.model.points[wanted]) - frame.points(eye)
    found = clicked_point(viewed, frame, frame.points(eye), 3 * away)
    assert found is not None and np.linalg.norm(viewed.model.points[found] - viewed.model.points[wanted]) < 0.1
    assert clicked_point(viewed, frame, frame.points(eye), -away) is None


def test_the_command_sets_the_scale(viewed: StoredModel) -> None:
    first, second = (int(viewed.model.tracks.obs_point[viewed.observations(view)[9]]) for view in (0, 3))
    found = measure(viewed, first, second)
    apart = np.linalg.norm(viewed.model.points[first] - viewed.model.points[second])
    assert found.length == pytest.approx(apart) and 0 < found.deviation < 0.2 * apart
    assert found.unit == "units of the model" and "±" in found.markdown()
    assert viewed.run is not None and Path(found.command.split()[2]) == viewed.run.root
    *words, metres = found.command.split()[4:]
    assert metres == "METRES"
    factor = find(viewed, TransformConfig(distance=(*words, f"{2 * apart:.6f}"))).similarity.scale
    assert factor == pytest.approx(2, rel=0.005)


def test_errors_of_the_cameras_are_followed(viewed: StoredModel) -> None:
    """Against points that are triangulated anew with the cameras of each mode, a little to either side."""
    modes, step = viewed.errors, 0.01
    assert modes is not None
    exact = with_exact_observations(viewed.model)
    for first, second in ((0, 1), (30, 5)):
        alone = distance_between(exact, first, second, 0.5)
        found = distance_between(exact, first, second, 0.5, modes)
        assert found.counts_cameras and not alone.counts_cameras
        variance = 0.0
        for mode in range(len(modes.params)):
            lengths = []
            for sign in (step, -step):
                model = with_error(exact, modes, mode, sign)
                ends = [triangulated(model, point) for point in (first, second)]
                lengths.append(np.linalg.norm(ends[1] - ends[0]))
            variance += ((lengths[0] - lengths[1]) / (2 * step)) ** 2
        assert found.deviation**2 - alone.deviation**2 == pytest.approx(variance, rel=1e-3)
        assert found.deviation > 1.05 * alone.deviation


def with_exact_observations(model: Reconstruction) -> Reconstruction:
    seen = model.tracks.obs_xy.copy()
    for row, (point, image) in enumerate(zip(model.tracks.obs_point, model.tracks.obs_image, strict=True)):
        seen[row] = seen_at(model, int(image), model.points[point])
    return replace(model, tracks=replace(model.tracks, obs_xy=seen))


def seen_at(model: Reconstruction, view: int, xyz: np.ndarray) -> np.ndarray:
    pose = model.cam_from_world[view]
    return project(model.cameras[model.camera_index[view]], (pose[:, :3] @ xyz + pose[:, 3])[None])[0][0]


def with_error(model: Reconstruction, modes: ErrorModes, mode: int, size: float) -> Reconstruction:
    """With the cameras of one mode, of this size."""
    centres = camera_centres(model.cam_from_world) + size * modes.position[mode]
    rotation = Rotation.from_rotvec(size * modes.rotation[mode]).as_matrix() @ model.cam_from_world[:, :, :3]
    poses = np.concatenate([rotation, -(rotation @ centres[:, :, None])], axis=2)
    (camera,) = model.cameras
    params = tuple((np.array(camera.params) + size * modes.params[mode]).tolist())
    return replace(model, cam_from_world=poses, cameras=(replace(camera, params=params),))


def triangulated(model: Reconstruction, point: int) -> np.ndarray:
    rows = np.flatnonzero(model.tracks.obs_point == point)

    def residual(xyz: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [seen_at(model, int(model.tracks.obs_image[row]), xyz) - model.tracks.obs_xy[row] for row in rows]
        )

    return least_squares(residual, model.points[point], xtol=1e-14, ftol=1e-14, gtol=1e-14).x


def test_deviations_are_those_of_the_whole_adjustment() -> None:
    """The inverse of all normal equations, poses, intrinsics and points together, by numerical derivatives; of a frame
    that is held by what is known of the cameras beforehand."""
    noise_px, num_views = 0.5, 5
    camera = Camera(model="SIMPLE_RADIAL", width=1600, height=1200, params=(1500.0, 800.0, 600.0, 0.0))
    model = with_exact_observations(make_lens_scene((camera,), num_views, 40, noise_px=0.0, extent=2.5, seed=2))
    num_params, num_points = len(camera.params), len(model.points)
    known = np.concatenate([np.tile([0.01] * 3 + [0.05] * 3, num_views), [30.0, 5.0, 5.0, 0.02]])

    def residual(unknown: np.ndarray) -> np.ndarray:
        poses = unknown[: 6 * num_views].reshape(1, num_views, 6)
        error = ErrorModes(
            rotation=poses[:, :, :3],
            position=poses[:, :, 3:],
            params=unknown[None, 6 * num_views : 6 * num_views + num_params],
        )
        there = replace(with_error(model, error, 0, 1.0), points=model.points + unknown[len(known) :].reshape(-1, 3))
        return residual_vectors(there).ravel()

    size = len(known) + 3 * num_points
    step = np.concatenate([known * 1e-3, np.full(3 * num_points, 1e-4)])
    nothing = np.zeros(size)
    jacobian = np.stack(
        [(residual(nothing + h) - residual(nothing - h)) / (2 * h.sum()) for h in np.diag(step)], axis=1
    )
    information = jacobian.T @ jacobian / noise_px**2
    information[: len(known), : len(known)] += np.diag(known**-2.0)
    covariance = np.linalg.inv(information)
    modes = np.linalg.cholesky(covariance[: len(known), : len(known)]).T
    poses = modes[:, : 6 * num_views].reshape(-1, num_views, 6)
    errors = ErrorModes(rotation=poses[:, :, :3], position=poses[:, :, 3:], params=modes[:, 6 * num_views :])
    for first, second in ((0, 1), (7, 3), (20, 37)):
        apart = model.points[second] - model.points[first]
        row = np.zeros(size)
        row[len(known) + 3 * first :][:3], row[len(known) + 3 * second :][:3] = -apart, apart
        expected = np.sqrt(row @ covariance @ row) / np.linalg.norm(apart)
        found = distance_between(model, first, second, noise_px, errors)
        assert found.deviation == pytest.approx(expected, rel=0.001)
        assert distance_between(model, first, second, noise_px).deviation < 0.9 * expected


def test_what_the_panel_says_where_nothing_is_known_of_the_cameras(viewed: StoredModel) -> None:
    assert "exact" not in measure(viewed, 0, 1).markdown()
    free = StoredModel(folder=viewed.folder, model=viewed.model, names=viewed.names)
    assert "The cameras are taken as exact" in measure(free, 0, 1).markdown()
