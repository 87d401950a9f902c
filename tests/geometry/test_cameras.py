"""Differentiable camera models against pycolmap and against finite differences."""

import numpy as np
import pytest
import torch

from anchorsfm.geometry.cameras import PARAM_NAMES, is_fisheye, normalised_from_pixels, project
from anchorsfm.scene.reconstruction import CAMERA_MODELS

PARAMS = {
    "SIMPLE_PINHOLE": [810.0, 512.0, 389.0],
    "PINHOLE": [810.0, 790.0, 512.0, 389.0],
    "SIMPLE_RADIAL": [810.0, 512.0, 389.0, -0.09],
    "RADIAL": [810.0, 512.0, 389.0, -0.12, 0.03],
    "OPENCV": [810.0, 790.0, 512.0, 389.0, -0.12, 0.03, 0.002, -0.003],
    "FULL_OPENCV": [810.0, 790.0, 512.0, 389.0, 0.12, 0.03, 0.002, -0.003, 0.01, 0.15, 0.02, -0.01],
    "SIMPLE_RADIAL_FISHEYE": [510.0, 512.0, 389.0, 0.02],
    "RADIAL_FISHEYE": [510.0, 512.0, 389.0, 0.02, -0.006],
    "OPENCV_FISHEYE": [510.0, 500.0, 512.0, 389.0, 0.02, -0.006, 0.002, -0.0007],
    "THIN_PRISM_FISHEYE": [510.0, 500.0, 512.0, 389.0, 0.02, -0.006, 0.001, -0.002, 0.002, -0.0007, 0.003, -0.002],
}


def camera_points(model, count=400, seed=0):
    """Points up to 35 degrees off the axis, 80 for fisheye models, at different depths; the first is on the axis."""
    rng = np.random.default_rng(seed)
    angle = np.deg2rad(rng.uniform(0, 80 if is_fisheye(model) else 35, count))
    turn = rng.uniform(0, 2 * np.pi, count)
    rays = np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], axis=1)
    rays[0] = 0, 0, 1
    return torch.from_numpy(rays * rng.uniform(0.2, 30, (count, 1)))


def reference(model, params):
    pycolmap = pytest.importorskip("pycolmap")
    return pycolmap.Camera(model=model, width=1024, height=768, params=list(map(float, params)))


def test_every_model_offered_has_a_differentiable_twin():
    assert set(CAMERA_MODELS) <= set(PARAM_NAMES) == set(PARAMS)


@pytest.mark.parametrize("model", PARAM_NAMES)
def test_projection_agrees_with_colmap(model):
    points = camera_points(model)
    ours = project(model, torch.tensor(PARAMS[model], dtype=torch.float64), points)
    theirs = reference(model, PARAMS[model]).img_from_cam(points.numpy())
    assert np.abs(ours.numpy() - theirs).max() < 1e-9


@pytest.mark.parametrize("model", PARAM_NAMES)
def test_inversion_agrees_with_colmap_and_undoes_projection(model):
    points = camera_points(model)
    params = torch.tensor(PARAMS[model], dtype=torch.float64)
    pixels = project(model, params, points)
    ours = normalised_from_pixels(model, params, pixels)
    truth = points[:, :2] / points[:, 2:]
    assert ((ours - truth).abs() / (1 + truth.abs())).max() < 1e-10
    theirs = torch.from_numpy(reference(model, PARAMS[model]).cam_from_img(pixels.numpy()))
    assert ((ours - theirs).abs() / (1 + theirs.abs())).max() < 1e-6


@pytest.mark.parametrize("model", PARAM_NAMES)
def test_one_camera_per_point_gives_the_same_as_one_for_all(model):
    points = camera_points(model, 20).float()
    params = torch.tensor(PARAMS[model])
    each = params.expand(len(points), -1)
    pixels = project(model, params, points)
    assert torch.equal(pixels, project(model, each, points))
    ours = normalised_from_pixels(model, params, pixels)
    assert torch.equal(ours, normalised_from_pixels(model, each, pixels)) and ours.dtype == torch.float32
    truth = points[:, :2] / points[:, 2:]
    assert ((ours - truth).abs() / (1 + truth.abs() ** 2)).max() < 2e-5


@pytest.mark.parametrize("model", PARAM_NAMES)
def test_gradients_of_projection(model):
    points = camera_points(model, 6).requires_grad_()
    params = torch.tensor(PARAMS[model], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, p: project(model, q, p) / 1000, (params, points))


@pytest.mark.parametrize("model", PARAM_NAMES)
def test_gradients_of_inversion(model):
    params = torch.tensor(PARAMS[model], dtype=torch.float64, requires_grad=True)
    pixels = project(model, params.detach(), camera_points(model, 6)).requires_grad_()
    check = lambda q, p: normalised_from_pixels(model, q, p * 100)  # noqa: E731
    assert torch.autograd.gradcheck(check, (params, (pixels.detach() / 100).requires_grad_()), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("model", PARAM_NAMES)
def test_points_behind_the_camera_are_nan_and_leave_gradients_finite(model):
    points = torch.tensor([[0.1, 0.2, 1.0], [0.1, 0.2, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, torch.nan]])
    points, params = points.double().requires_grad_(), torch.tensor(PARAMS[model]).double().requires_grad_()
    pixels = project(model, params, points)
    assert torch.isfinite(pixels).all(1).tolist() == [True, False, False, False]
    pixels[0].sum().backward()
    assert torch.isfinite(points.grad).all() and torch.isfinite(params.grad).all()


def test_pixels_that_no_ray_reaches_are_nan_and_leave_gradients_finite():
    # r (1 - 0.3 r^2) is largest, 0.7027, at r = 1.054
    params = torch.tensor([1000.0, 500.0, 400.0, -0.3], dtype=torch.float64, requires_grad=True)
    xy = torch.tensor([[500.0, 400.0], [1202.0, 400.0], [1204.0, 400.0], [5e4, 400.0], [torch.nan, 1.0]]).double()
    normalised = normalised_from_pixels("SIMPLE_RADIAL", params, xy)
    assert torch.isfinite(normalised).all(1).tolist() == [True, True, False, False, False]
    assert 1.0 < normalised[1, 0] < 1.054
    torch.nansum(normalised).backward()
    assert torch.isfinite(params.grad).all()


def test_fisheye_rays_beyond_the_half_space_are_nan():
    params = torch.tensor([500.0, 500.0, 500.0, 0.0], dtype=torch.float64)
    xy = torch.tensor([[500 + 500 * 1.5, 500.0], [500 + 500 * 1.6, 500.0]]).double()
    normalised = normalised_from_pixels("SIMPLE_RADIAL_FISHEYE", params, xy)
    assert normalised[0, 0].item() == pytest.approx(np.tan(1.5), rel=1e-12)
    assert torch.isnan(normalised[1]).all()


def test_wrong_number_of_parameters_is_an_error():
    with pytest.raises(ValueError, match="OPENCV has 8 parameters, not 4"):
        project("OPENCV", torch.ones(4), torch.ones(1, 3))


def test_no_points_give_no_pixels():
    for model, params in PARAMS.items():
        assert project(model, torch.tensor(params), torch.zeros(0, 3)).shape == (0, 2)
        assert normalised_from_pixels(model, torch.tensor(params), torch.zeros(0, 2)).shape == (0, 2)
