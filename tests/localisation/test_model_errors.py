"""What errors of a model do to a pose in it: to first order what solving everything anew does."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from anchorsfm.geometry.similarity import Similarity
from anchorsfm.geometry.transforms import camera_centres
from anchorsfm.localisation.model_errors import ModelErrors
from anchorsfm.localisation.pose import PlacedView
from anchorsfm.scene.edit import moved, select_points, select_views, with_cameras, with_moved_points, with_poses
from anchorsfm.scene.reconstruction import Camera, Reconstruction
from anchorsfm.tracks.error_modes import ErrorModes
from anchorsfm.tracks.linearised import linearise, solve
from point_scene import make_lens_scene

CAMERA = Camera(model="SIMPLE_RADIAL", width=1024, height=768, params=(900.0, 512.0, 384.0, 0.02))
OTHER = replace(CAMERA, params=(910.0, 512.0, 384.0, 0.01))
STEP = 1e-5
WAY = Similarity.of(Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix(), np.array([3.0, -7.0, 2.0]), 2.5)


def scene(camera: Camera) -> tuple[Reconstruction, Reconstruction]:
    """A model of five views, and a photograph of its points by a camera."""
    cameras = (CAMERA,) * 5 + (camera,)
    whole = make_lens_scene(cameras, num_views=6, num_points=200, noise_px=0.0, extent=3.0, roll_deg=30.0)
    image = whole.tracks.obs_image
    model = select_views(select_points(whole, image < 5), np.arange(5))
    model = replace(model, cameras=(CAMERA,), camera_index=np.zeros(5, np.int64))
    photograph = select_views(select_points(whole, image == 5, min_length=1), np.arange(5, 6))
    tracks = replace(photograph.tracks, obs_image=np.zeros(len(photograph.points), np.int64))
    photograph = replace(
        photograph,
        image_index=np.zeros(1, np.int64),
        cameras=(camera,),
        camera_index=np.zeros(1, np.int64),
        tracks=tracks,
    )
    return model, photograph


def one_mode(model: Reconstruction) -> ErrorModes:
    rng = np.random.default_rng(0)
    params = np.array([[900.0, 0.0, 0.0, 1.0]]) * rng.standard_normal((1, 4))
    return ErrorModes(rotation=rng.standard_normal((1, 5, 3)), position=rng.standard_normal((1, 5, 3)), params=params)


def changed(poses: np.ndarray, step: np.ndarray) -> np.ndarray:
    rotation = Rotation.from_rotvec(step[:, :3]).as_matrix() @ poses[:, :, :3]
    centre = camera_centres(poses) + step[:, 3:]
    return np.concatenate([rotation, -np.einsum("vij,vj->vi", rotation, centre)[:, :, None]], axis=2)


def errors_of(model: Reconstruction, modes: ErrorModes | None) -> ModelErrors:
    view, unknown = np.zeros(len(model.tracks.obs_point), np.int64), np.full(5, np.nan)
    return ModelErrors(model=model, view=view, position=unknown, rotation_deg=unknown, modes=modes)


def placed(photograph: Reconstruction, focal_deviation_px: float = 0.0) -> PlacedView:
    return PlacedView(
        cam_from_world=photograph.cam_from_world[0],
        camera=photograph.cameras[0],
        focal_source="model",
        inlier=np.ones(1, bool),
        error_px=0.0,
        covariance=np.eye(6),
        focal_deviation_px=focal_deviation_px,
        open_deviations=np.array([np.inf if focal_deviation_px else 0.0, 0.0, 0.0, 0.0]),
    )


def seen(model: Reconstruction, photograph: Reconstruction) -> tuple[Reconstruction, np.ndarray, np.ndarray]:
    """The photograph with the points of the model that it shows, their rows in any order, and where it shows them."""
    both = np.flatnonzero(
        [np.isclose(model.points, point, atol=1e-12).all(axis=1).any() for point in photograph.points]
    )
    rows = np.array([int(np.abs(model.points - p).sum(axis=1).argmin()) for p in photograph.points[both]])
    order = np.random.default_rng(1).permutation(len(rows))
    xy = np.array([photograph.tracks.obs_xy[photograph.tracks.obs_point == k][0] for k in both])
    keep = select_points(photograph, np.isin(photograph.tracks.obs_point, both), min_length=1)
    return keep, rows[order], xy[order]


@pytest.mark.parametrize(("camera", "focal_deviation_px"), [(CAMERA, 0.0), (OTHER, 0.0), (OTHER, 20.0)])
def test_the_first_order_is_what_solving_anew_gives(camera: Camera, focal_deviation_px: float) -> None:
    model, photograph = scene(camera)
    modes = one_mode(model)
    photograph, rows, xy = seen(model, photograph)
    covariance = errors_of(model, modes).covariance(placed(photograph, focal_deviation_px), rows, xy)
    assert covariance is not None

    lens = replace(CAMERA, params=tuple((np.array(CAMERA.params) + STEP * modes.params[0]).tolist()))
    wrong = with_poses(with_cameras(model, (lens,)), changed(model.cam_from_world, STEP * modes.poses[0]))
    for _ in range(4):
        lin = linearise(wrong, 1e3)
        normal, right = np.zeros((len(wrong.points), 3, 3)), np.zeros((len(wrong.points), 3))
        np.add.at(normal, lin.point, np.einsum("nki,nkj->nij", lin.by_point, lin.by_point))
        np.add.at(right, lin.point, np.einsum("nki,nk->ni", lin.by_point, lin.residual))
        wrong = with_moved_points(wrong, wrong.points - np.linalg.solve(normal, right[:, :, None])[:, :, 0])
    order = np.sort(rows)
    again = with_moved_points(photograph, wrong.points[order])
    if camera is CAMERA:
        again = with_cameras(again, (lens,))
    columns = [*range(6), *([6] if focal_deviation_px else [])]
    for _ in range(4):
        lin = linearise(again, 1e3)
        by = lin.by_unknown.toarray()[:, columns]
        step = -solve(by.T @ by, (by.T @ lin.residual.ravel())[:, None])[:, 0]
        again = with_poses(again, changed(again.cam_from_world, step[None, :6]))
        if focal_deviation_px:
            params = (again.cameras[0].params[0] + step[6], *again.cameras[0].params[1:])
            again = with_cameras(again, (replace(again.cameras[0], params=params),))
    turn = again.cam_from_world[0, :, :3] @ photograph.cam_from_world[0, :, :3].T
    shift = camera_centres(again.cam_from_world[0]) - camera_centres(photograph.cam_from_world[0])
    found = np.concatenate([Rotation.from_matrix(turn).as_rotvec(), shift]) / STEP
    expected = np.outer(found, found)
    assert np.linalg.norm(covariance - expected) < 0.01 * np.linalg.norm(expected)
    assert np.linalg.norm((covariance - expected)[3:, 3:]) < 0.01 * np.linalg.norm(expected[3:, 3:])


def test_what_is_expected_of_a_lens_holds_it_as_far_as_it_goes() -> None:
    """A lens that hardly may differ is a held one, one that may differ as it likes is a free one."""
    model, photograph = scene(OTHER)
    photograph, rows, xy = seen(model, photograph)
    errors, size = errors_of(model, one_mode(model)), np.array([900.0, 1000.0, 1000.0, 1.0])

    def covariance(deviations: np.ndarray) -> np.ndarray:
        view = replace(placed(photograph), error_px=1.0, open_deviations=deviations)
        found = errors.covariance(view, rows, xy)
        assert found is not None
        return found

    held, free = covariance(np.zeros(4)), covariance(np.full(4, np.inf))
    assert np.linalg.norm(held - free) > 0.1 * np.linalg.norm(held)
    np.testing.assert_allclose(covariance(1e-7 * size), held, rtol=1e-3, atol=1e-6 * np.abs(held).max())
    np.testing.assert_allclose(covariance(1e4 * size), free, rtol=1e-3, atol=1e-6 * np.abs(free).max())


def test_a_mode_that_moves_all_cameras_moves_the_photograph_with_them() -> None:
    """A turn of the whole model about its origin: nothing else is wrong."""
    model, photograph = scene(CAMERA)
    photograph, rows, xy = seen(model, photograph)
    axis = np.array([0.2, -0.5, 0.3])
    everything = np.concatenate([model.cam_from_world, photograph.cam_from_world])
    shift, turn = np.cross(axis, camera_centres(everything)), -everything[:, :, :3] @ axis
    modes = ErrorModes(rotation=turn[None, :5], position=shift[None, :5], params=np.zeros((1, 4)))
    covariance = errors_of(model, modes).covariance(placed(photograph), rows, xy)
    step = np.concatenate([turn[5], shift[5]])
    np.testing.assert_allclose(covariance, np.outer(step, step), atol=1e-4)

    whole = moved(model, WAY.scale, WAY.pose)
    there = replace(photograph, cam_from_world=WAY.poses(photograph.cam_from_world))
    found = errors_of(whole, modes.moved(WAY)).covariance(placed(there), rows, xy)
    step[3:] = WAY.scale * WAY.rotation @ step[3:]
    np.testing.assert_allclose(found, np.outer(step, step), atol=1e-3)


def test_without_modes_the_cameras_that_see_the_points_say_it() -> None:
    model, photograph = scene(CAMERA)
    _, rows, xy = seen(model, photograph)
    errors = errors_of(model, None)
    assert errors.covariance(placed(photograph), rows, xy) is None
    said = replace(errors, position=np.full(5, 0.3), rotation_deg=np.full(5, 2.0))
    covariance = said.covariance(placed(photograph), rows, xy)
    assert covariance is not None
    assert np.sqrt(np.trace(covariance[3:, 3:])) == pytest.approx(0.3)
    assert np.degrees(np.sqrt(np.trace(covariance[:3, :3]))) == pytest.approx(2.0)
