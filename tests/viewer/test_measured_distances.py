"""Distances between points that are clicked, with deviations that are right."""

from pathlib import Path

import numpy as np
import pytest

from anchorsfm.colmap.cameras import project
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.results.model import StoredModel, read_models
from anchorsfm.tracks.measure import distance_between, observation_deviation_px, point_covariances
from anchorsfm.transform.config import TransformConfig
from anchorsfm.transform.find import find
from anchorsfm.viewer.frame import shown_frame
from anchorsfm.viewer.measure import clicked_point, measure
from finished_run import write_finished_run


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
    assert found.length == pytest.approx(apart) and 0 < found.deviation < 0.05 * apart
    assert found.unit == "units of the model" and "±" in found.markdown()
    assert viewed.run is not None and Path(found.command.split()[2]) == viewed.run.root
    *words, metres = found.command.split()[4:]
    assert metres == "METRES"
    factor = find(viewed, TransformConfig(distance=(*words, f"{2 * apart:.6f}"))).similarity.scale
    assert factor == pytest.approx(2, rel=0.005)
