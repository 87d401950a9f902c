"""Models from one's own matches, and points with gradients."""

from itertools import combinations

import numpy as np
import pycolmap
import pytest
import torch

import anchorsfm
from anchorsfm.evaluation import evaluate_poses
from anchorsfm.geometry.transforms import transform
from anchorsfm.scene.poses import PoseSet

WIDTH, HEIGHT, FOCAL = 640, 480, 600.0
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
NAMES = [f"{k}.jpg" for k in range(5)]


def cameras() -> np.ndarray:
    """Five cameras on an arc that look at the origin, cam_from_world (5, 3, 4)."""
    poses = []
    for angle in np.radians(np.linspace(-25, 25, 5)):
        centre = 6 * np.array([np.sin(angle), -0.1 + 0.3 * np.sin(3 * angle), -np.cos(angle)])
        forward = -centre / np.linalg.norm(centre)
        right = np.cross([0, 1.0, 0], forward)
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        poses.append(np.column_stack([rotation, -rotation @ centre]))
    return np.array(poses)


POSES = cameras()


def observations(noise: float = 0.3, count: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (image, point, 2) of random points, and the points."""
    rng = np.random.default_rng(4)
    points = rng.uniform([-1.8, -1.3, -1.5], [1.8, 1.3, 1.5], (count, 3))
    seen = np.stack([transform(pose, points) for pose in POSES])
    xy = seen[..., :2] / seen[..., 2:] * FOCAL + [WIDTH / 2, HEIGHT / 2]
    return xy + rng.normal(0, noise, xy.shape), points


XY, POINTS = observations()


def pair_matches(confidence=None, xy: np.ndarray = XY) -> dict:
    more = () if confidence is None else (np.full(len(POINTS), confidence),)
    return {(NAMES[i], NAMES[j]): (xy[i], xy[j], *more) for i, j in combinations(range(5), 2)}


def auc(model: anchorsfm.Model) -> float:
    size_wh = np.tile([WIDTH, HEIGHT], (5, 1))
    found = np.stack([model.poses[name].cam_from_world for name in model.names])
    focal = np.array([model.intrinsics[name].focal_px[0] for name in model.names])
    true = PoseSet(names=tuple(NAMES), cam_from_world=POSES, focal_px=np.full(5, FOCAL), size_wh=size_wh)
    made = PoseSet(names=model.names, cam_from_world=found, focal_px=focal, size_wh=size_wh[: len(model.names)])
    return evaluate_poses(made, true).auc[1]


SIZES = dict.fromkeys(NAMES, (WIDTH, HEIGHT))


@pytest.mark.parametrize("mapper", ["tracks", "incremental", "global"])
def test_any_mapper_makes_a_model_without_photographs(mapper, tmp_path, capfd):
    model = anchorsfm.reconstruct_matches(pair_matches(), SIZES, intrinsics=FOCAL, mapper=mapper)
    assert capfd.readouterr() == ("", "")
    assert model.names == tuple(NAMES) and auc(model) > 0.9
    assert model.intrinsics[NAMES[0]].params[0] == FOCAL and len(model.cameras) == 1
    assert 0 < np.median(model.points.error_px) < 1 and model.points.track_length.min() >= 2
    model.save(tmp_path)
    assert pycolmap.Reconstruction(str(tmp_path)).num_reg_images() == 5


def test_unknown_intrinsics_are_found_and_adjusting_can_be_left_out():
    adjusted = anchorsfm.reconstruct_matches(pair_matches(), (WIDTH, HEIGHT), camera_model="SIMPLE_PINHOLE")
    assert abs(adjusted.intrinsics[NAMES[0]].K[0, 0] / FOCAL - 1) < 0.02
    plain = anchorsfm.reconstruct_matches(pair_matches(), SIZES, intrinsics=K, adjust=False)
    better = anchorsfm.reconstruct_matches(pair_matches(), SIZES, intrinsics=K)
    assert len(plain) == 5 and better.points.error_px.mean() <= plain.points.error_px.mean()


@pytest.mark.parametrize(("scale", "value"), [("probability", 0.95), ("score", 12.0), ("log", float(np.log(0.95)))])
def test_confidences_of_every_scale_count(scale, value):
    model = anchorsfm.reconstruct_matches(pair_matches(value), SIZES, confidence=scale, intrinsics=FOCAL)
    assert len(model) == 5
    doubtful = {"probability": 0.1, "score": 1.1, "log": -5.0}[scale]
    with pytest.raises(anchorsfm.NoReconstructionError, match=r"0 are confident enough .*min_confidence"):
        anchorsfm.reconstruct_matches(pair_matches(doubtful), SIZES, confidence=scale, intrinsics=FOCAL)


def test_tensors_dictionaries_rows_and_plain_arrays_are_the_same():
    usual = anchorsfm.reconstruct_matches(pair_matches(), SIZES, intrinsics=FOCAL, adjust=False)
    pairs = list(combinations(range(5), 2))
    forms = [
        {(i, j): np.concatenate([XY[i], XY[j]], axis=1) for i, j in pairs},
        {(j, i): (torch.tensor(XY[j], requires_grad=True), torch.tensor(XY[i])) for i, j in pairs},
        {(i, j): {"xy_i": (XY[i] - 0.5).tolist(), "xy_j": XY[j] - 0.5} for i, j in pairs},
    ]
    for number, form in enumerate(forms):
        centre = 0 if number == 2 else 0.5
        model = anchorsfm.reconstruct_matches(
            form, [(WIDTH, HEIGHT)] * 5, intrinsics=FOCAL, adjust=False, pixel_centre=centre
        )
        assert model.names == tuple("01234")
        assert np.allclose(model.reconstruction.cam_from_world, usual.reconstruction.cam_from_world, atol=1e-6)


def test_broken_and_outlying_rows_are_left_out_and_counted():
    xy = XY.copy()
    xy[1, ::50] = np.nan
    xy[2, 1::50, 0] = 5000
    model = anchorsfm.reconstruct_matches(pair_matches(xy=xy), SIZES, intrinsics=FOCAL)
    assert auc(model) > 0.9
    assert model.warnings[0].startswith("20 of 2500 matches are left out: their numbers are NaN")
    assert model.warnings[1].startswith("20 of 2500 matches are left out: they lie outside")


def test_dense_matches_are_thinned_out_and_merged():
    rng = np.random.default_rng(0)
    dense = {pair: tuple(xy + rng.uniform(-0.4, 0.4, xy.shape) for xy in ends) for pair, ends in pair_matches().items()}
    model = anchorsfm.reconstruct_matches(dense, SIZES, intrinsics=FOCAL)
    assert len(model) == 5 and auc(model) > 0.8
    assert model.points.track_length.max() > 2 and len(model.points) < len(POINTS)
    by_hand = anchorsfm.reconstruct_matches(dense, SIZES, intrinsics=FOCAL, keypoints=True)
    assert by_hand.points.track_length.max() == 2


def test_images_that_nothing_holds_are_named():
    few = {pair: value for pair, value in pair_matches().items() if NAMES[4] not in pair}
    model = anchorsfm.reconstruct_matches(few, SIZES, intrinsics=FOCAL)
    assert set(model.unregistered) == {NAMES[4]} and repr(model).startswith("<Model: 4 of 5 images")


def test_points_are_those_of_the_scene_and_have_gradients():
    point, image = np.tile(np.arange(len(POINTS)), 5), np.repeat(np.arange(5), len(POINTS))
    xy = torch.tensor(XY.reshape(-1, 2), requires_grad=True)
    poses = torch.tensor(POSES, requires_grad=True)
    params = torch.tensor([FOCAL, WIDTH / 2, HEIGHT / 2], requires_grad=True)
    found = anchorsfm.triangulate(xy, point=point, image=image, cam_from_world=poses, params=params)
    assert (found.status == 0).all() and np.abs(found.xyz.detach().numpy() - POINTS).max() < 0.06
    assert found.inlier.float().mean() > 0.99
    found.xyz.square().sum().backward()
    assert all(bool((value.grad.abs().sum() > 0) & value.grad.isfinite().all()) for value in (xy, poses, params))
    row = 3 * len(POINTS) + 7
    moved = XY.reshape(-1, 2).copy()
    moved[row, 0] += 1e-3
    again = anchorsfm.triangulate(moved, point=point, image=image, cam_from_world=POSES, params=params.detach())
    change = float(again.xyz.square().sum() - found.xyz.detach().square().sum()) / 1e-3
    assert change == pytest.approx(float(xy.grad[row, 0]), rel=1e-2)


def test_tracks_without_a_point_are_nan_without_gradient():
    xy = torch.tensor([[320.0, 240.0], [320.0, 240.0], [100.0, 100.0]], requires_grad=True)
    found = anchorsfm.triangulate(
        xy, point=[1, 1, 0], image=[0, 4, 2], cam_from_world=POSES, params=[[FOCAL, 320, 240]] * 5
    )
    assert found.status.tolist() == [1, 0] and bool(found.xyz[0].isnan().all()) and found.inlier.tolist() == [1, 1, 0]
    found.xyz[1].sum().backward()
    assert xy.grad[2].abs().sum() == 0 and bool(xy.grad.isfinite().all())
